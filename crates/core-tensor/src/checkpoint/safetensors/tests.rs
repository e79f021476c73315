use std::fs;

use ::safetensors::{Dtype, SafeTensors};
use indexmap::IndexMap;
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

use super::*;
use crate::Error;

const KINDS: [Kind; 10] = [
    Kind::Float,
    Kind::Double,
    Kind::Half,
    Kind::BFloat16,
    Kind::Int64,
    Kind::Int,
    Kind::Int16,
    Kind::Int8,
    Kind::Uint8,
    Kind::Bool,
];

fn bytes_of(tensor: &Tensor) -> Vec<u8> {
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    if !bytes.is_empty() {
        tensor.copy_data_u8(&mut bytes, tensor.numel());
    }
    bytes
}

fn written(tensors: &IndexMap<String, Tensor>, metadata: &Metadata) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.safetensors");
    write_safetensors(&path, tensors, metadata).unwrap();
    fs::read(&path).unwrap()
}

fn read_bytes(bytes: &[u8]) -> crate::Result<IndexMap<String, Tensor>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.safetensors");
    fs::write(&path, bytes).unwrap();
    read_safetensors(&path)
}

/// A file of this header and these data.
fn assembled(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn refusal(bytes: &[u8]) -> (u64, String) {
    match read_bytes(bytes) {
        Err(Error::Malformed { offset, reason, .. }) => (offset, reason),
        other => panic!("expected a refusal, found {other:?}"),
    }
}

#[test]
fn the_bytes_are_the_documented_ones() {
    let tensors = IndexMap::from([
        ("mask".to_owned(), Tensor::from_slice(&[true, false, true])),
        ("step".to_owned(), Tensor::from(258_i64)),
    ]);
    let metadata = Metadata::from_iter([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())]);
    // The header lists in the map's order; the data begin with the eight-byte integers.
    let mut header = concat!(
        r#"{"__metadata__":{"b":"2","a":"1"},"#,
        r#""mask":{"dtype":"BOOL","shape":[3],"data_offsets":[8,11]},"#,
        r#""step":{"dtype":"I64","shape":[],"data_offsets":[0,8]}}"#
    )
    .to_owned();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    assert_eq!(written(&tensors, &metadata), assembled(&header, &[2, 1, 0, 0, 0, 0, 0, 0, 1, 0, 1]));
}

#[test]
fn the_map_of_strings_and_single_tensors_are_read_without_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.safetensors");
    let tensors = IndexMap::from([
        ("b".to_owned(), Tensor::from_slice(&[1.5_f32, -2.0]).reshape([2, 1])),
        ("a".to_owned(), Tensor::from_slice(&[1_u8])),
    ]);
    let metadata = Metadata::from_iter([("key".to_owned(), "välue\n\0".to_owned())]);
    write_safetensors(&path, &tensors, &metadata).unwrap();
    let mut file = SafetensorsFile::open(&path).unwrap();
    assert_eq!(file.metadata(), &metadata);
    assert_eq!(file.tensors().keys().collect::<Vec<_>>(), ["b", "a"]);
    assert_eq!((file.tensors()["b"].kind, file.tensors()["b"].shape.as_slice()), (Kind::Float, [2, 1].as_slice()));
    assert!(file.tensor("a").unwrap().equal(&tensors["a"]));
    assert!(file.tensor("b").unwrap().equal(&tensors["b"]));
    assert!(matches!(file.tensor("c"), Err(Error::Names { missing, .. }) if missing == ["c"]));
}

#[test]
fn an_empty_file_of_tensors_and_views_that_are_not_contiguous_survive() {
    assert!(read_bytes(&written(&IndexMap::new(), &Metadata::new())).unwrap().is_empty());
    let matrix = Tensor::arange(6, (Kind::Float, Device::Cpu)).reshape([2, 3]);
    let tensors = IndexMap::from([
        ("transposed".to_owned(), matrix.tr()),
        ("column".to_owned(), matrix.select(1, 1)),
        ("expanded".to_owned(), Tensor::from(3.0_f32).expand([2, 2], false)),
    ]);
    let back = read_bytes(&written(&tensors, &Metadata::new())).unwrap();
    for (name, tensor) in &tensors {
        assert!(back[name].equal(tensor), "{name}");
    }
}

#[test]
fn tensors_that_the_format_cannot_hold_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.safetensors");
    let complex = Tensor::zeros([2], (Kind::ComplexFloat, Device::Cpu));
    let sparse = Tensor::eye(2, (Kind::Float, Device::Cpu)).to_sparse(None, None::<Vec<i64>>, None);
    for (name, tensor) in [("c", complex), ("s", sparse), ("u", Tensor::new()), ("__metadata__", Tensor::from(1.0))] {
        let error = write_safetensors(&path, &IndexMap::from([(name.to_owned(), tensor)]), &Metadata::new());
        assert!(matches!(&error, Err(Error::Tensor { name: named, .. }) if named == name), "{error:?}");
        assert!(!path.exists());
    }
}

#[test]
fn each_contradiction_is_refused_with_its_place() {
    let header = |entries: &str| format!("{{{entries}}}");
    let entry = |name: &str, dtype: &str, shape: &str, begin: u64, end: u64| {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
    };
    let one = |dtype: &str, shape: &str, begin, end| header(&entry("a", dtype, shape, begin, end));
    let two = |first: String, second: String| header(&format!("{first},{second}"));
    let cases: Vec<(String, usize, &str)> = vec![
        (one("F8_E4M3", "[1]", 0, 1), 1, "unsupported dtype `F8_E4M3`"),
        (one("F32", "[2]", 0, 4), 4, "takes 8 bytes, found offsets 0 to 4"),
        (one("F32", "[1]", 4, 0), 4, "found offsets 4 to 0"),
        (one("F32", "[-1]", 0, 4), 4, "impossible shape [-1]"),
        (one("U8", "[4611686018427387904,4]", 0, 4), 4, "impossible shape"),
        (one("U8", "[4611686018427387904,4,0]", 0, 0), 0, "impossible shape"),
        (one("U8", "[2]", 1, 3), 3, "leaves a gap"),
        (one("U8", "[2]", 0, 2), 3, "describes 2 bytes of data, found 3"),
        (one("U8", "[4000000000000000000]", 0, 4_000_000_000_000_000_000), 3, "describes 4000000000000000000 bytes"),
        (
            two(entry("a", "U8", "[2]", 0, 2), entry("b", "U8", "[2]", 1, 3)),
            3,
            "`b` begins at 1 of the data and overlaps",
        ),
        (two(entry("a", "U8", "[1]", 0, 1), entry("a", "U8", "[1]", 1, 2)), 2, "`a` appears twice"),
        (header(r#""__metadata__":{},"__metadata__":{}"#), 0, "`__metadata__` appears twice"),
        (header(r#""__metadata__":{"a":1}"#), 0, "expected a string"),
        (header(r#""a":{"dtype":"F32","shape":[1]}"#), 0, "missing field `data_offsets`"),
        ("[]".to_owned(), 0, "begins with `{`"),
        ("{".to_owned(), 0, "EOF while parsing"),
    ];
    for (header, data, expected) in cases {
        let (_, reason) = refusal(&assembled(&header, &vec![0; data]));
        assert!(reason.contains(expected), "{header}: {reason}");
    }
}

#[test]
fn offsets_in_refusals_point_at_the_fault() {
    // A syntax error at the third character of the second line, behind 8 + 3 bytes.
    assert_eq!(refusal(&assembled("{ \n ?}", &[])).0, 8 + 3 + 2);
    // The second truth value, behind a header of 52 bytes.
    let header = r#"{"a":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]}}"#;
    let (offset, reason) = refusal(&assembled(header, &[1, 2, 0]));
    assert_eq!(
        (offset, reason.as_str()),
        (8 + header.len() as u64 + 1, "`a`: expected a truth value of 0 or 1, found 2")
    );
    // Lengths that reach behind the end.
    assert_eq!(refusal(&[1, 2, 3]).0, 0);
    assert!(refusal(&u64::MAX.to_le_bytes()).1.contains("at most 0 bytes, found a length of 18446744073709551615"));
}

#[test]
fn a_missing_file_and_a_folder_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().join("absent"), folder.path().to_owned()] {
        let error = read_safetensors(&path).unwrap_err();
        assert!(matches!(&error, Error::Io { path: named, .. } if named == &path), "{error}");
    }
}

/// Any kind, any shape (scalars and empty ones too), any bits (truth values aside).
fn any_tensor() -> impl Strategy<Value = (Kind, Vec<i64>, Vec<u8>)> {
    (prop::sample::select(KINDS.as_slice()), prop::collection::vec(0_i64..4, 0..4)).prop_flat_map(|(kind, shape)| {
        let bytes = shape.iter().product::<i64>() as usize * kind.elt_size_in_bytes();
        let range = if kind == Kind::Bool { 0..=1 } else { 0..=u8::MAX };
        (Just(kind), Just(shape), prop::collection::vec(range, bytes))
    })
}

fn any_tensors() -> impl Strategy<Value = IndexMap<String, Tensor>> {
    prop::collection::vec((".{0,6}", any_tensor()), 0..6).prop_map(|entries| {
        entries
            .into_iter()
            .map(|(name, (kind, shape, bytes))| (name, Tensor::from_data_size(&bytes, &shape, kind)))
            .collect()
    })
}

fn peers_kind(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}

/// Kind, shape and data.
type Plain = (Kind, Vec<i64>, Vec<u8>);

/// The reference reader's view of the same bytes.
fn peer(bytes: &[u8]) -> Option<IndexMap<String, Plain>> {
    let file = SafeTensors::deserialize(bytes).ok()?;
    let mut tensors = IndexMap::new();
    for (name, view) in file.tensors() {
        let shape = view.shape().iter().map(|&dimension| dimension as i64).collect();
        tensors.insert(name, (peers_kind(view.dtype())?, shape, view.data().to_vec()));
    }
    Some(tensors)
}

fn assert_agrees_with_peer(ours: &IndexMap<String, Tensor>, bytes: &[u8]) {
    let theirs = peer(bytes).expect("the reference reader accepts what this one accepts");
    assert_eq!(ours.len(), theirs.len());
    for (name, tensor) in ours {
        assert_eq!((tensor.kind(), tensor.size(), bytes_of(tensor)), theirs[name], "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_tensors_come_back_bit_for_bit_here_and_in_the_reference_reader(tensors in any_tensors(), key in ".{0,8}", value in ".{0,8}") {
        let metadata = Metadata::from_iter([(key, value)]);
        let bytes = written(&tensors, &metadata);
        prop_assert_eq!(&bytes, &written(&tensors, &metadata));
        let back = read_bytes(&bytes).unwrap();
        prop_assert!(back.keys().eq(tensors.keys()));
        for (name, tensor) in &tensors {
            prop_assert_eq!(back[name].kind(), tensor.kind());
            prop_assert_eq!(back[name].size(), tensor.size());
            prop_assert_eq!(bytes_of(&back[name]), bytes_of(tensor));
        }
        assert_agrees_with_peer(&back, &bytes);
    }

    #[test]
    fn data_begin_on_multiples_of_their_element_size(tensors in any_tensors()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.safetensors");
        write_safetensors(&path, &tensors, &Metadata::new()).unwrap();
        let bytes = fs::read(&path).unwrap();
        prop_assert_eq!(u64::from_le_bytes(bytes[..8].try_into().unwrap()) % 8, 0);
        for info in SafetensorsFile::open(&path).unwrap().tensors().values() {
            prop_assert_eq!(info.begin % info.kind.elt_size_in_bytes() as u64, 0);
        }
    }

    #[test]
    fn random_bytes_are_refused_or_read_as_the_reference_reads_them(bytes in prop::collection::vec(any::<u8>(), 0..200), json in "[{}\\[\\]\":,a0-9]{0,40}") {
        for candidate in [bytes, assembled(&json, &[0; 4])] {
            if let Ok(tensors) = read_bytes(&candidate) {
                assert_agrees_with_peer(&tensors, &candidate);
            }
        }
    }

    #[test]
    fn damaged_files_are_refused_or_read_as_the_reference_reads_them(tensors in any_tensors(), cut in any::<prop::sample::Index>(), flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..4)) {
        let whole = written(&tensors, &Metadata::new());
        prop_assert!(read_bytes(&whole[..cut.index(whole.len())]).is_err());
        let mut flipped = whole;
        for (place, bit) in flips {
            let place = place.index(flipped.len());
            flipped[place] ^= 1_u8 << bit;
        }
        if let Ok(tensors) = read_bytes(&flipped) {
            assert_agrees_with_peer(&tensors, &flipped);
        }
    }
}
