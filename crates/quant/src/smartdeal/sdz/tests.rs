//! The file against everything that can happen to it.

use proptest::prelude::*;
use rand::{Rng, SeedableRng};

use super::*;
use crate::smartdeal::{Basis, BlockRule, LayerShape, Layout, storage};

fn scheme() -> impl Strategy<Value = IndexScheme> {
    prop_oneof![
        Just(IndexScheme::Bitmap),
        Just(IndexScheme::RowBitmap),
        (1u8..=16).prop_map(|run_bits| IndexScheme::Rlc { run_bits }),
        Just(IndexScheme::Csr),
    ]
}

fn shape() -> impl Strategy<Value = LayerShape> {
    prop_oneof![
        (0usize..7, 7usize..300)
            .prop_map(|(out_features, in_features)| LayerShape::Linear { out_features, in_features }),
        (0usize..7, 7usize..80).prop_map(|(o, i)| LayerShape::Conv { out_channels: o, in_channels: i, kernel: [1, 1] }),
        (0usize..7).prop_map(|o| LayerShape::Conv { out_channels: o, in_channels: 1, kernel: [3, 3] }),
        (0usize..7, 0usize..50, 2usize..8).prop_map(|(o, i, k)| LayerShape::Conv {
            out_channels: o,
            in_channels: i,
            kernel: [k, k]
        }),
    ]
}

/// A layer of any structure: zeros with probability `zeros`, whole rows of them with probability `zero_rows`.
fn layer() -> impl Strategy<Value = SdLayer> {
    let bits = prop_oneof![Just(32u8), 2u8..=16];
    (shape(), any::<bool>(), any::<u64>(), 0f64..=1.0, 0f64..=1.0, 1i8..=127, bits).prop_map(
        |(shape, reference, seed, zeros, zero_rows, magnitudes, bits)| {
            let rule = if reference { BlockRule::Reference } else { BlockRule::MaxRows(2) };
            let layout = Layout::new(shape, rule).unwrap();
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let mut codes = vec![0i8; layout.entries()];
            for row in codes.chunks_mut(layout.columns) {
                if rng.random_bool(zero_rows) {
                    continue;
                }
                for code in row {
                    if !rng.random_bool(zeros) {
                        let magnitude = rng.random_range(1..=magnitudes);
                        *code = if rng.random_bool(0.5) { magnitude } else { -magnitude };
                    }
                }
            }
            let count = layout.blocks() * layout.basis_len();
            let float = Basis::Float((0..count).map(|_| rng.random_range(-2f32..2.0)).collect());
            let basis = if bits == 32 { float } else { float.quantised(bits).unwrap() };
            SdLayer::from_parts(layout, codes, basis).unwrap()
        },
    )
}

fn write(records: &[(&str, Record)], scheme: Option<IndexScheme>) -> Vec<u8> {
    let mut writer = SdzWriter::new(Vec::new()).unwrap();
    for (name, record) in records {
        match record {
            Record::Layer(layer) => writer.layer(name, layer, scheme).unwrap(),
            Record::Dense(tensor) => writer.dense(name, &tensor.dims, &tensor.values).unwrap(),
        }
    }
    writer.finish().unwrap()
}

fn read(bytes: &[u8]) -> Result<Vec<(String, Record)>> {
    let mut reader = SdzReader::new(bytes)?;
    std::iter::from_fn(|| reader.next_record().transpose()).collect()
}

fn sample() -> Vec<u8> {
    let layout = Layout::new(LayerShape::Linear { out_features: 3, in_features: 20 }, BlockRule::MaxRows(1)).unwrap();
    let codes = (0..layout.entries()).map(|i| [0, 60, 0, -61, 0, 0, 0][i % 7]).collect();
    let basis = Basis::Float((0..layout.blocks() * 9).map(|i| i as f32 / 7.0).collect());
    let layer = SdLayer::from_parts(layout, codes, basis.quantised(8).unwrap()).unwrap();
    let bias = DenseTensor { dims: vec![3], values: vec![0.5, -1.5, 0.25] };
    write(&[("fc.weight", Record::Layer(layer)), ("fc.bias", Record::Dense(bias))], None)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_written_is_read_back_and_the_bits_are_those_counted(layer in layer(), scheme in scheme()) {
        let bytes = write(&[("layer", Record::Layer(layer.clone()))], Some(scheme));
        let counted = storage(&layer, scheme).unwrap();
        let sections = [counted.index_bits, counted.coefficient_bits, counted.basis_bits];
        let body = 2 + "layer".len() + payload::header_len(&layer)
            + sections.iter().map(|bits| bits.div_ceil(8) as usize).sum::<usize>();
        // Header 12, each record 16 + 4 around its body, the end record's body 8.
        prop_assert_eq!(bytes.len(), 12 + (20 + body) + (20 + 8));
        prop_assert_eq!(read(&bytes).unwrap(), vec![("layer".to_owned(), Record::Layer(layer))]);
    }

    #[test]
    fn the_cheapest_scheme_reads_back_too(layer in layer()) {
        let bytes = write(&[("layer", Record::Layer(layer.clone()))], None);
        prop_assert_eq!(&read(&bytes).unwrap()[0].1, &Record::Layer(layer));
    }

    #[test]
    fn dense_tensors_keep_every_bit(values in prop::collection::vec(any::<u32>(), 0..40)) {
        let values: Vec<f32> = values.into_iter().map(f32::from_bits).collect();
        let record = Record::Dense(DenseTensor { dims: vec![values.len()], values: values.clone() });
        let back = read(&write(&[("t", record)], None)).unwrap();
        let Record::Dense(tensor) = &back[0].1 else { panic!("dense expected") };
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&tensor.values), bits(&values));
    }

    #[test]
    fn a_flipped_bit_is_noticed(position in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = sample();
        let at = position.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let error = read(&bytes).unwrap_err();
        prop_assert!(
            matches!(error, Error::Checksum { .. } | Error::Malformed { .. } | Error::Truncated { .. }), "{error}"
        );
    }

    #[test]
    fn a_truncated_file_is_noticed(position in any::<prop::sample::Index>()) {
        let bytes = sample();
        let error = read(&bytes[..position.index(bytes.len())]).unwrap_err();
        prop_assert!(matches!(error, Error::Truncated { .. }), "{error}");
    }

    #[test]
    fn a_body_of_noise_with_a_good_checksum_never_panics(
        body in prop::collection::vec(any::<u8>(), 0..200), kind in prop_oneof![Just(LAYER), Just(DENSE), Just(END), any::<u8>()],
    ) {
        prop_assert!(read(&sealed(kind, &body)).is_err());
    }

    #[test]
    fn a_damaged_body_with_a_good_checksum_never_panics(
        layer in layer(), scheme in scheme(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let bytes = write(&[("layer", Record::Layer(layer))], Some(scheme));
        let mut body = bytes[28..bytes.len() - 32].to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        let mut bytes = sealed(LAYER, &body);
        bytes.extend_from_slice(&sealed(END, &1u64.to_le_bytes())[12..]);
        // It may still be a layer, then it must be one that can be used.
        if let Ok(records) = read(&bytes) {
            for (_, record) in records {
                record.to_dense();
            }
        }
    }
}

/// A file of one record with correct checksums and no end.
fn sealed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = SdzWriter::new(Vec::new()).unwrap().finish().unwrap();
    bytes.truncate(12);
    let mut frame = vec![kind, 0, 0, 0];
    frame.extend((body.len() as u64).to_le_bytes());
    frame.extend(crc32fast::hash(&frame).to_le_bytes());
    bytes.extend(frame);
    bytes.extend(body);
    bytes.extend(crc32fast::hash(body).to_le_bytes());
    bytes
}

#[test]
fn a_newer_version_is_told_apart_from_damage() {
    let mut bytes = sample();
    bytes[4..6].copy_from_slice(&7u16.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..8]);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    assert!(matches!(read(&bytes), Err(Error::Version { found: 7, supported: SDZ_VERSION })));
    assert!(matches!(read(b"PK\x03\x04 something else entirely"), Err(Error::Malformed { offset: 0, .. })));
}

#[test]
fn bytes_after_the_end_are_noticed() {
    let mut bytes = sample();
    bytes.push(0);
    assert!(matches!(read(&bytes), Err(Error::Malformed { .. })));
}

#[test]
fn a_name_is_written_once() {
    let mut writer = SdzWriter::new(Vec::new()).unwrap();
    writer.dense("w", &[1], &[0.0]).unwrap();
    assert!(matches!(writer.dense("w", &[1], &[0.0]), Err(Error::Config { name: "record name", .. })));
    assert!(matches!(writer.dense("v", &[2], &[0.0]), Err(Error::Shape { .. })));
}

#[test]
fn a_refused_record_leaves_no_trace() {
    let records = read(&sample()).unwrap();
    let Record::Layer(layer) = &records[0].1 else { panic!("layer expected") };
    let mut writer = SdzWriter::new(Vec::new()).unwrap();
    let refused = writer.layer("fc.weight", layer, Some(IndexScheme::Rlc { run_bits: 0 }));
    assert!(matches!(refused, Err(Error::Config { name: "run_bits", .. })));
    writer.layer("fc.weight", layer, None).unwrap();
    assert_eq!(read(&writer.finish().unwrap()).unwrap(), records[..1]);
}

#[test]
fn a_claim_of_endless_zeros_is_refused() {
    // Run-length coding stores nothing for zeros: 2^32 − 1 filters would cost no bytes.
    let mut body = vec![1, 0, b'w', 2];
    body.extend(u32::MAX.to_le_bytes());
    body.extend(9u32.to_le_bytes());
    body.push(3);
    body.extend(3u32.to_le_bytes());
    body.extend(3u32.to_le_bytes());
    body.extend([2, 4, 0, 8]);
    body.extend(1f32.to_le_bytes());
    body.extend(0u64.to_le_bytes());
    assert!(matches!(read(&sealed(LAYER, &body)), Err(Error::Malformed { reason, .. }) if reason.contains("at most")));
}

/// 2^32 − 1 filters of no inputs: no entry, no byte, and no memory for any of them.
#[test]
fn endless_filters_without_entries_take_no_memory() {
    let mut body = vec![1, 0, b'w', 2];
    body.extend(u32::MAX.to_le_bytes());
    body.extend(0u32.to_le_bytes());
    body.push(3);
    body.extend(0u32.to_le_bytes());
    body.extend(1u32.to_le_bytes());
    body.extend([0, 0, 0, 32]);
    body.extend(1f32.to_le_bytes());
    body.extend(0u64.to_le_bytes());
    let mut bytes = sealed(LAYER, &body);
    bytes.extend_from_slice(&sealed(END, &1u64.to_le_bytes())[12..]);
    let records = read(&bytes).unwrap();
    assert!(records[0].1.to_dense().values.is_empty());
}

#[test]
fn a_file_appears_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.sdz");
    let names = || std::fs::read_dir(folder.path()).unwrap().count();
    let model = SdzModel { records: read(&sample()).unwrap().into_iter().collect() };
    let mut abandoned = SdzFile::create(&path).unwrap();
    abandoned.writer().dense("b", &[1], &[1.0]).unwrap();
    drop(abandoned);
    assert_eq!(names(), 0);
    let length = model.write(&path, None).unwrap();
    assert_eq!((names(), std::fs::metadata(&path).unwrap().len()), (1, length));
    assert_eq!(std::fs::read(&path).unwrap(), sample());
    assert_eq!(SdzModel::read(&path).unwrap(), model);
    assert_eq!(model.dense_bytes(), 4 * (60 + 3));
    let nowhere = folder.path().join("no/such/folder.sdz");
    assert!(matches!(model.write(&nowhere, None), Err(Error::File { .. })));
    assert!(matches!(SdzModel::read(&nowhere), Err(Error::File { .. })));
}
