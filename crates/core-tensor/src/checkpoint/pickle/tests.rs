use std::fs;
use std::io::{Cursor, Write};

use proptest::prelude::*;
use tch::Kind;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::*;

/// Files of PyTorch 2.11.0, written by `benches/peers/make_pickle_fixtures.py`.
macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("data/", $name, ".pth")).as_slice()
    };
}

const FIXTURES: [&[u8]; 14] = [
    fixture!("state_dict"),
    fixture!("nested"),
    fixture!("views"),
    fixture!("real"),
    fixture!("whole"),
    fixture!("parameter"),
    fixture!("protocol3"),
    fixture!("protocol4"),
    fixture!("protocol5"),
    fixture!("legacy"),
    fixture!("malicious"),
    fixture!("deflated"),
    fixture!("big_endian"),
    // An archive without entries.
    b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
];

fn open_within(bytes: &[u8], limits: &PickleLimits) -> Result<PickleFile> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.pth");
    fs::write(&path, bytes).unwrap();
    PickleFile::open_within(&path, limits)
}

fn open(bytes: &[u8]) -> Result<PickleFile> {
    open_within(bytes, &PickleLimits::default())
}

fn refusal<T: std::fmt::Debug>(result: Result<T>) -> (u64, String) {
    match result {
        Err(Error::Malformed { offset, reason, .. }) => (offset, reason),
        other => panic!("expected a refusal, found {other:?}"),
    }
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).reshape([-1])).unwrap()
}

/// An archive as PyTorch writes it around this pickle and these storages.
fn archive(pickle: &[u8], storages: &[(&str, &[u8])], compression: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(compression);
    let members = [("data.pkl", pickle)];
    for (name, bytes) in members.into_iter().chain(storages.iter().copied()) {
        zip.start_file(format!("archive/{name}"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn stored(pickle: &[u8], storages: &[(&str, &[u8])]) -> Vec<u8> {
    archive(pickle, storages, CompressionMethod::Stored)
}

/// Protocol 2, these instructions, stop.
fn program(instructions: &[u8]) -> Vec<u8> {
    [b"\x80\x02", instructions, b"."].concat()
}

/// The instructions for a tensor of storage `0`.
fn tensor(kind: &str, elements: i32, offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
    let int = |number: i32| [b"J".as_slice(), &number.to_le_bytes()].concat();
    let tuple = |numbers: &[i32]| {
        [b"(", numbers.iter().flat_map(|&number| int(number)).collect::<Vec<_>>().as_slice(), b"t"].concat()
    };
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((\x8c\x07storagectorch\n".as_slice(),
        kind.as_bytes(),
        b"Storage\n\x8c\x010\x8c\x03cpu",
        &int(elements),
        b"tQ",
        &int(offset),
        &tuple(shape),
        &tuple(strides),
        b"\x89ccollections\nOrderedDict\n)RtR",
    ]
    .concat()
}

#[test]
fn a_state_dict_gives_its_tensors_in_order_and_its_metadata_is_let_go() {
    let state = open(fixture!("state_dict")).unwrap().state().unwrap();
    let names: Vec<_> = state.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var", "bn1.num_batches_tracked"]
    );
    assert_eq!((state["conv1.weight"].size(), floats(&state["conv1.weight"])), (vec![2, 1, 1, 1], vec![0.5, -0.25]));
    assert_eq!(floats(&state["bn1.running_mean"]), [3.0, 4.0]);
    let counter = &state["bn1.num_batches_tracked"];
    assert_eq!((counter.kind(), counter.size(), counter.int64_value(&[])), (Kind::Int64, vec![], 0));
}

#[test]
fn everything_beside_the_model_is_plain_data() {
    for bytes in [fixture!("nested"), fixture!("deflated")] {
        let mut file = open(bytes).unwrap();
        let root = file.root();
        assert_eq!(root.get("epoch").and_then(Value::as_int), Some(3));
        assert_eq!(root.get("best").and_then(Value::as_float), Some(0.75));
        assert_eq!(root.get("arch").and_then(Value::as_text), Some("résnet"));
        assert_eq!(root.get("done"), Some(&Value::Bool(false)));
        assert_eq!(root.get("none"), Some(&Value::None));
        assert_eq!(root.get("big"), Some(&Value::Int(-(1 << 40))));
        let list = Value::List([1, 300, 70_000].map(Value::Int).to_vec());
        assert_eq!(root.get("betas"), Some(&Value::Tuple(vec![Value::Float(0.5), list])));

        let Some(Value::Dict(momentum)) = root.get("optimizer").and_then(|optimizer| optimizer.get("state")) else {
            panic!("{root:?}")
        };
        let Some(Value::Tensor(buffer)) = momentum.get_index(0).and_then(|entry| entry.get("momentum_buffer")) else {
            panic!("{momentum:?}")
        };
        let buffer = buffer.clone();
        assert_eq!(floats(&file.tensor(&buffer).unwrap()), [0.0, 1.0, 2.0, 3.0]);

        // The model is found under its usual key, or by naming it.
        let state = file.state().unwrap();
        assert_eq!(state.keys().collect::<Vec<_>>(), ["module.fc.weight", "module.fc.bias"]);
        assert_eq!(state["module.fc.weight"].size(), [2, 2]);
        assert_eq!(floats(&state["module.fc.bias"]), [7.0, 8.0]);
        assert_eq!(file.state_at(&["state_dict"]).unwrap().len(), 2);
    }
}

#[test]
fn views_keep_their_strides_and_share_their_storage() {
    let state = open(fixture!("views")).unwrap().state().unwrap();
    // The base counts 0 to 5 in two rows of three.
    assert_eq!(floats(&state["base"]), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!((state["transposed"].size(), state["transposed"].stride()), (vec![3, 2], vec![1, 3]));
    assert_eq!(floats(&state["transposed"]), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert_eq!(floats(&state["row"]), [3.0, 4.0, 5.0]);
    assert_eq!(floats(&state["column"]), [2.0, 5.0]);
    assert_eq!((state["expanded"].size(), state["expanded"].stride()), (vec![2, 2], vec![0, 0]));
    assert_eq!(floats(&state["expanded"]), [4.0; 4]);
    assert_eq!((state["scalar"].size(), floats(&state["scalar"])), (vec![], vec![5.0]));
    let _ = state["row"].shallow_clone().fill_(9.0);
    assert_eq!(floats(&state["base"]), [0.0, 1.0, 2.0, 9.0, 9.0, 9.0]);
}

#[test]
fn every_kind_keeps_its_kind_and_values() {
    let mut state = open(fixture!("real")).unwrap().state().unwrap();
    state.extend(open(fixture!("whole")).unwrap().state().unwrap());
    let expected: [(&str, Kind, &[f64]); 10] = [
        ("half", Kind::Half, &[1.5, -2.0]),
        ("bfloat16", Kind::BFloat16, &[1.5, -2.0]),
        ("double", Kind::Double, &[0.1]),
        ("empty", Kind::Float, &[]),
        ("int64", Kind::Int64, &[-1_099_511_627_776.0]),
        ("int32", Kind::Int, &[-70_000.0]),
        ("int16", Kind::Int16, &[-300.0]),
        ("int8", Kind::Int8, &[-1.0]),
        ("uint8", Kind::Uint8, &[255.0]),
        ("bool", Kind::Bool, &[1.0, 0.0]),
    ];
    for (name, kind, values) in expected {
        assert_eq!((state[name].kind(), floats(&state[name])), (kind, values.to_vec()), "{name}");
    }
    assert_eq!(state["empty"].size(), [0, 3]);
}

#[test]
fn parameters_are_tensors_and_protocols_3_to_5_read_like_2() {
    assert_eq!(floats(&open(fixture!("parameter")).unwrap().state().unwrap()["weight"]), [1.0, 2.0]);
    for bytes in [fixture!("protocol3"), fixture!("protocol4"), fixture!("protocol5")] {
        let state = open(bytes).unwrap().state().unwrap();
        assert_eq!(state.keys().collect::<Vec<_>>(), ["weight", "bias"]);
        assert_eq!((state["weight"].size(), floats(&state["weight"])), (vec![1, 2], vec![1.0, 2.0]));
        assert_eq!(floats(&state["bias"]), [3.0]);
    }
}

#[test]
fn a_call_to_the_system_is_refused_by_name_and_place() {
    let (offset, reason) = refusal(open(fixture!("malicious")));
    assert!(reason.starts_with("data.pkl: refused `posix.system`"), "{reason}");
    // Behind the protocol, the dictionary and its key.
    let pickle = program(b"}q\x00X\x0a\x00\x00\x00state_dictcposix\nsystem\n");
    assert_eq!(offset as usize, pickle.windows(7).position(|window| window == b"cposix\n").unwrap() + "q\x01".len());
    assert!(!std::path::Path::new("executed").exists());
}

#[test]
fn other_formats_are_refused_with_what_to_do() {
    assert!(refusal(open(fixture!("legacy"))).1.contains("convert it in Python with torch.save(torch.load("));
    assert!(refusal(open(fixture!("big_endian"))).1.contains("expected `little`, found `big`"));
    assert!(refusal(open(b"{}")).1.contains("zip archive"));
    assert!(refusal(open(b"")).1.contains("zip archive"));
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("notes.txt", SimpleFileOptions::default()).unwrap();
    assert!(refusal(open(&zip.finish().unwrap().into_inner())).1.contains("one folder that has a `data.pkl`"));
}

#[test]
fn where_the_model_lies_is_never_guessed() {
    let mut file = open(fixture!("nested")).unwrap();
    let message = |result: Result<IndexMap<String, Tensor>>| result.unwrap_err().to_string();
    assert!(message(file.state_at(&["optimizer", "absent"])).starts_with("`optimizer.absent`: expected an entry"));
    assert!(message(file.state_at(&["epoch"])).ends_with("expected a dictionary of tensors, found an integer"));
    assert!(message(file.state_at(&["optimizer"])).starts_with("`state`: expected a tensor under a text key"));
    let two = program(b"}(\x8c\x05model}\x8c\x03net}u");
    let reason = refusal(open(&stored(&two, &[])).unwrap().state()).1;
    assert!(reason.contains(r#"found a dictionary with keys ["model", "net"]"#), "{reason}");
}

#[test]
fn each_fault_of_a_pickle_is_named() {
    let views_of_four = |offset, shape: &[i32], strides: &[i32]| program(&tensor("Float", 4, offset, shape, strides));
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "the pickle ends 0 bytes into something of 1 bytes"),
        (b"\x80\x06.".to_vec(), "expected pickle protocol 2 to 5, found 6"),
        (program(b""), "the stack is empty"),
        (program(b"NN"), "1 objects too many"),
        (program(b"(N"), "1 objects too many"),
        (program(b"N("), "the stack is empty"),
        (program(b"iposix\nsystem\n"), "instruction 0x69"),
        (program(b"\x8c\x05posix\x8c\x06system\x93"), "refused `posix.system`"),
        (program(b"ctorch\nload\n"), "refused `torch.load`"),
        (program(b"cbuiltins\nev\x1bal\n"), r"refused `builtins.ev\u{1b}al`"),
        (program(b"NNs"), "the stack is empty"),
        (program(b"N(NNu"), "expected a dictionary to add to, found None"),
        (program(b"}(Nu"), "a key without a value"),
        (program(b"NNa"), "expected a list to append to, found None"),
        (program(b"e"), "there is no mark"),
        (program(b"(N\x86"), "the stack is too short for a tuple"),
        (program(b"h\x07"), "nothing was memoised as 7"),
        (program(b"q\x00"), "the stack is empty"),
        (program(b"N)R"), "expected something to call, found None"),
        (program(b"ccollections\nOrderedDict\nNR"), "arguments are no tuple"),
        (program(b"ccollections\nOrderedDict\nN\x85R"), "OrderedDict called with 1 arguments"),
        (program(b"ctorch\nFloatStorage\n)R"), "Storage(Float) called with 0 arguments"),
        (program(b"ctorch\nFloatStorage\n"), "expected a value, found a class or function"),
        (program(b"ctorch._utils\n_rebuild_parameter\nNNN\x87R"), "expected a parameter's tensor, found None"),
        (program(b"N}b"), "expected a dictionary to set attributes of, found None"),
        (program(b"NQ"), "expected ('storage', kind, key, location, elements)"),
        (program(b"\x8a\x09\0\0\0\0\0\0\0\0\x01"), "an integer of 9 bytes"),
        (program(b"X\xff\xff\xff\xffabc"), "something of 4294967295 bytes"),
        (program(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc"), "something of 18446744073709551615 bytes"),
        (program(b"\x8c\x01\xff"), "a string: invalid utf-8"),
        (program(b"\x95\xff\0\0\0\0\0\0\0N"), "a frame of 255 bytes where 2 are left"),
        (views_of_four(1, &[4], &[1]), "reaches behind its storage of 4 elements"),
        (views_of_four(0, &[2, 2], &[3, 1]), "reaches behind its storage of 4 elements"),
        (views_of_four(5, &[0], &[1]), "reaches behind its storage of 4 elements"),
        (views_of_four(-1, &[1], &[1]), "offset -1"),
        (views_of_four(0, &[-1], &[1]), "shape [-1]"),
        (views_of_four(0, &[2], &[-1]), "strides [-1]"),
        (views_of_four(0, &[2], &[]), "1 dimensions and 0 strides"),
        (views_of_four(0, &[1; 65], &[1; 65]), "65 dimensions"),
        (views_of_four(0, &[i32::MAX; 3], &[0; 3]), "a tensor of shape"),
        (views_of_four(0, &[i32::MAX, 1], &[0; 2]), "more than the limit of 4294967296"),
        (program(&tensor("Float", -1, 0, &[0], &[1])), "a storage of -1 elements"),
        (
            program(&[tensor("Float", 4, 0, &[4], &[1]), tensor("Int", 4, 0, &[4], &[1]), b"\x86".to_vec()].concat()),
            "storage `0` is 4 elements of Int here, 4 of Float before",
        ),
    ];
    for (pickle, expected) in cases {
        let (_, reason) = refusal(open(&stored(&pickle, &[("data/0", &[0; 16])])));
        assert!(reason.contains(expected), "{}: {reason}", pickle.escape_ascii());
    }
}

#[test]
fn containers_that_hold_themselves_or_double_at_every_level_are_refused() {
    let limits = PickleLimits::default();
    let itself = program(b"]q\x00h\x00a");
    assert!(refusal(open(&stored(&itself, &[]))).1.contains("one contains itself"));
    // 64 lists are the limit, and a number fits into the innermost.
    let nested = |depth: usize| program(&[vec![b']'; depth], b"K\x01".to_vec(), vec![b'a'; depth]].concat());
    assert!(open(&stored(&nested(limits.depth), &[])).is_ok());
    assert!(refusal(open(&stored(&nested(limits.depth + 1), &[]))).1.contains("nested more than 64 deep"));
    // Thirty pairs of one another would be 2³⁰ numbers.
    let mut doubling = b"K\x01q\x00".to_vec();
    for _ in 0..30 {
        doubling.extend(b"h\x00\x86q\x00");
    }
    assert!(refusal(open(&stored(&program(&doubling), &[]))).1.contains("share one another without end"));
}

#[test]
fn storages_must_be_there_and_as_long_as_their_tensors_say() {
    let pickle = program(&[b"}\x8c\x01w".as_slice(), &tensor("Float", 2, 0, &[2], &[1]), b"s"].concat());
    let good = 1.0_f32.to_le_bytes().repeat(2);
    assert_eq!(floats(&open(&stored(&pickle, &[("data/0", &good)])).unwrap().state().unwrap()["w"]), [1.0, 1.0]);
    let reason = |storages: &[(&str, &[u8])]| refusal(open(&stored(&pickle, storages)).unwrap().state()).1;
    assert!(reason(&[]).contains("data/0 is missing"));
    assert!(reason(&[("data/0", &good[1..])]).contains("expected 2 elements of Float in 8 bytes, found 7 bytes"));
    let truth = program(&[b"}\x8c\x01w".as_slice(), &tensor("Bool", 2, 0, &[2], &[1]), b"s"].concat());
    let (offset, reason) = refusal(open(&stored(&truth, &[("data/0", &[1, 2])])).unwrap().state());
    assert_eq!((offset, reason.as_str()), (1, "data/0: expected a truth value of 0 or 1, found 2"));
}

#[test]
fn compressed_storages_and_the_pickle_itself_stay_within_their_limits() {
    // A mebibyte of zeros deflates to about a kilobyte.
    let elements = 1 << 18;
    let pickle = program(&[b"}\x8c\x01w".as_slice(), &tensor("Float", elements, 0, &[elements], &[1]), b"s"].concat());
    let bomb = archive(&pickle, &[("data/0", &vec![0; 4 << 18])], CompressionMethod::Deflated);
    assert!(bomb.len() < 4096);
    assert_eq!(open(&bomb).unwrap().state().unwrap()["w"].size(), [i64::from(elements)]);
    let tight = PickleLimits { expanded_bytes: 1 << 20, ..PickleLimits::default() };
    // The pickle is compressed too and takes its share.
    assert!(refusal(open_within(&bomb, &tight).unwrap().state()).1.contains("leave"));
    let short = PickleLimits { pickle_bytes: 10, ..PickleLimits::default() };
    assert!(refusal(open_within(&bomb, &short)).1.contains("more than the limit of 10"));
}

#[test]
fn a_flipped_bit_in_a_storage_is_noticed() {
    let mut bytes = fixture!("parameter").to_vec();
    let weights = 1.0_f32.to_le_bytes().into_iter().chain(2.0_f32.to_le_bytes()).collect::<Vec<_>>();
    let place = bytes.windows(8).position(|window| window == weights).unwrap();
    bytes[place] ^= 1;
    let reason = refusal(open(&bytes).unwrap().state()).1;
    assert!(reason.contains("checksum"), "{reason}");
}

/// Reads whatever can be read; a refusal is as good as a value. No tensor may be larger than the limits allow.
fn survives(bytes: &[u8]) {
    let limits = PickleLimits { expanded_bytes: 1 << 20, ..PickleLimits::default() };
    let Ok(mut file) = open_within(bytes, &limits) else { return };
    let mut references = Vec::new();
    collect(file.root(), &mut references);
    for reference in references {
        if let Ok(tensor) = file.tensor(&reference) {
            let allowed = (limits.expanded_bytes as usize).max(bytes.len());
            assert!(tensor.numel() * tensor.kind().elt_size_in_bytes() <= allowed);
            // Touches every element.
            let _ = tensor.to_kind(Kind::Double).sum(Kind::Double).double_value(&[]);
        }
    }
}

fn collect(value: &Value, references: &mut Vec<TensorRef>) {
    match value {
        Value::Tensor(reference) => references.push((**reference).clone()),
        Value::Tuple(items) | Value::List(items) => items.iter().for_each(|item| collect(item, references)),
        Value::Dict(entries) => entries.iter().for_each(|(key, value)| {
            collect(key, references);
            collect(value, references);
        }),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        survives(&bytes);
        survives(&[b"PK\x03\x04".as_slice(), &bytes].concat());
    }

    #[test]
    fn random_pickles_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        survives(&stored(&bytes, &[("data/0", &[0; 16])]));
    }

    #[test]
    fn random_instructions_never_panic(places in prop::collection::vec(0_usize..32, 0..60)) {
        // Whole instructions reach deeper than random bytes do.
        let view = tensor("Float", 4, 1, &[3], &[1]);
        let instructions: [&[u8]; 32] = [
            b"N", b"(", b")", b"}", b"]", b"\x88", b"K\x03", b"M\x01\x02", b"J\xff\xff\xff\xff", b"\x8a\x01\x80", b"G\0\0\0\0\0\0\0\0",
            b"\x8c\x010", b"X\x01\0\0\0a", b"\x85", b"\x86", b"\x87", b"t", b"a", b"e", b"s", b"u", b"q\0", b"h\0", b"\x94", b"R", b"b", b"Q",
            b"ccollections\nOrderedDict\n", b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter\n", &view,
        ];
        let pickle = program(&places.into_iter().map(|place| instructions[place]).collect::<Vec<_>>().concat());
        survives(&stored(&pickle, &[("data/0", &[0; 16])]));
    }

    #[test]
    fn damaged_files_never_panic(which in 0..FIXTURES.len(), cut in any::<prop::sample::Index>(), flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 0..6)) {
        let mut bytes = FIXTURES[which].to_vec();
        survives(&bytes[..cut.index(bytes.len())]);
        for (place, bit) in flips {
            let place = place.index(bytes.len());
            bytes[place] ^= 1_u8 << bit;
        }
        survives(&bytes);
    }

    #[test]
    fn damaged_pickles_in_sound_archives_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        // Flips in a whole file mostly end at its checksums; these do not.
        let mut pickle = program(&[b"}(\x8c\x01w".as_slice(), &tensor("Float", 4, 0, &[2, 2], &[2, 1]), b"\x8c\x01v", &tensor("Float", 4, 1, &[3], &[1]), b"u"].concat());
        for (place, byte) in flips {
            let place = place.index(pickle.len());
            pickle[place] = byte;
        }
        survives(&stored(&pickle, &[("data/0", &[0; 16])]));
    }

    #[test]
    fn a_view_is_accepted_exactly_when_every_element_lies_in_its_storage(offset in 0_i32..8, dimensions in prop::collection::vec((0_i32..4, 0_i32..4), 0..4)) {
        let (shape, strides): (Vec<_>, Vec<_>) = dimensions.into_iter().unzip();
        // By enumeration: every index tuple's place.
        let mut places = vec![i64::from(offset)];
        for (&dimension, &stride) in shape.iter().zip(&strides) {
            places = (0..dimension).flat_map(|index| places.iter().map(move |place| place + i64::from(index * stride))).collect();
        }
        let fits = if places.is_empty() { offset <= 8 } else { places.iter().all(|&place| place < 8) };
        let pickle = program(&[b"}\x8c\x01w".as_slice(), &tensor("Byte", 8, offset, &shape, &strides), b"s"].concat());
        let opened = open(&stored(&pickle, &[("data/0", &[0, 1, 2, 3, 4, 5, 6, 7])]));
        prop_assert_eq!(opened.is_ok(), fits);
        if let Ok(mut file) = opened {
            let values = floats(&file.state().unwrap()["w"]);
            let mut found: Vec<_> = values.iter().map(|&value| value as i64).collect();
            // The enumeration above varies the first index fastest; only the multiset is compared.
            found.sort_unstable();
            places.sort_unstable();
            prop_assert_eq!(found, places);
        }
    }
}
