use super::*;
use core_tensor::seed::{Purpose, generator};
use proptest::prelude::*;
use rand::Rng;

fn map(rows: usize, columns: usize, value: impl Fn(usize, usize) -> f64) -> SimilarityMap {
    let values = (0..rows * columns).map(|index| value(index / columns, index % columns)).collect();
    SimilarityMap::new([rows, columns], [rows / 2, columns / 2], values).unwrap()
}

#[test]
fn similarities_of_two_small_vectors_by_hand() {
    // (3·4 + 4·3) / 25; 1 − √2 / 10.
    let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found}");
    near(Similarity::Cosine.of(&[3.0, 4.0], &[4.0, 3.0]).unwrap(), 0.96);
    near(Similarity::Euclidean.of(&[3.0, 4.0], &[4.0, 3.0]).unwrap(), 1.0 - 2_f64.sqrt() / 10.0);
    near(Similarity::Cosine.of(&[1.0, 0.0], &[-2.0, 0.0]).unwrap(), -1.0);
    near(Similarity::Euclidean.of(&[1.0, 0.0], &[-2.0, 0.0]).unwrap(), 0.0);
}

#[test]
fn maps_survive_their_file_and_impossible_ones_are_refused() {
    let map = SimilarityMap::new([1, 3], [0, 1], vec![0.5, 1.0, 0.25]).unwrap();
    let text = serde_json::to_string(&map).unwrap();
    assert_eq!(serde_json::from_str::<SimilarityMap>(&text).unwrap(), map);
    for (from, to) in [("\"size\":[1,3]", "\"size\":[3,0]"), ("\"anchor\":[0,1]", "\"anchor\":[0,3]")] {
        assert!(text.contains(from), "{text}");
        assert!(serde_json::from_str::<SimilarityMap>(&text.replace(from, to)).is_err(), "{to}");
    }
    assert!(SimilarityMap::new([usize::MAX, 2], [0, 0], vec![1.0]).is_err());
    assert_eq!(map.aperiodicity(usize::MAX), 0.0);
}

#[test]
fn vectors_without_direction_are_refused_by_position() {
    let error = Similarity::Cosine.of(&[1.0, 0.0], &[0.0, 0.0]).unwrap_err();
    assert!(matches!(error, Error::ZeroNorm { position: [0, 1], .. }), "{error}");
    let error = Similarity::Cosine.of(&[f32::NAN, 0.0], &[0.0, 1.0]).unwrap_err();
    assert!(matches!(error, Error::NotFinite { position: [0, 0], .. }), "{error}");
    assert!(Similarity::Cosine.of(&[1.0], &[1.0, 2.0]).is_err());
}

#[test]
fn a_constant_map_loses_nothing() {
    let flat = map(5, 7, |_, _| 1.0);
    assert_eq!((flat.jaggedness(), flat.local_drop(2), flat.global_drop()), (0.0, 0.0, 0.0));
    assert_eq!(flat.stride_spectrum(&[2, 4]), [0.0, 0.0]);
    assert_eq!(flat.anisotropy(), None);
    assert_eq!(flat.aperiodicity(2), 0.0);
}

#[test]
fn drops_and_profiles_of_a_cone_by_hand() {
    // 1 − .1 · distance on 5 × 5: 1, 8 and 16 positions at distances 0, 1, 2.
    let cone = map(5, 5, |row, column| 1.0 - 0.1 * row.abs_diff(2).max(column.abs_diff(2)) as f64);
    let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found}");
    near(cone.local_drop(1), 0.1);
    near(cone.local_drop(2), (8.0 * 0.1 + 16.0 * 0.2) / 24.0);
    near(cone.global_drop(), (8.0 * 0.1 + 16.0 * 0.2) / 25.0);
    near(cone.anisotropy().unwrap(), 1.0);
    let profile: Vec<_> = cone.profile().into_iter().map(|point| (point.distance, point.positions)).collect();
    assert_eq!(profile, [(0, 1), (1, 8), (2, 16)]);
    // Steps of .1 wherever the ring changes: in rows 1 to 3 … counted: each of rows 0, 4: 0; rows 1, 3: 2; row 2: 4.
    near(cone.jaggedness(), 0.1 * 2.0 * 8.0 / 40.0);
}

#[test]
fn a_wave_has_its_power_at_its_period_wherever_that_falls_in_a_row() {
    // Of 32 differences 8 is a whole number of turns, of 20 it is two and a half.
    for columns in [33, 21] {
        for (place, period) in [2, 4, 8].into_iter().enumerate() {
            let wave = map(3, columns, |_, column| (TAU * column as f64 / f64::from(period) + 0.4).sin());
            let shares = wave.stride_spectrum(&[2, 4, 8]);
            for (other, share) in shares.iter().enumerate() {
                // What the window lets through from two and a half turns away: its side lobe of 2.4 %, squared.
                let expected = if other == place { 1.0 } else { 0.0 };
                assert!((share - expected).abs() < 2e-3, "{columns} columns, period {period}: {shares:?}");
            }
            // Differences of sines, exact to rounding.
            assert!(wave.aperiodicity(8) < 1e-12 && (wave.repetition(8) - 1.0).abs() < 1e-12);
        }
    }
    let wave = map(3, 33, |_, column| (TAU * column as f64 / 8.0).sin());
    assert!(wave.aperiodicity(4) > 1.0);
}

#[test]
fn pulses_repeat_as_exactly_as_waves_do() {
    // Bumps, and bumps with dents between, whose differences have most of their power at a third of the period.
    let bumps = map(3, 21, |row, column| f64::from(u8::from((column + row) % 8 == 3)));
    let dents = map(3, 21, |_, column| [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0][column % 8]);
    for pulses in [&bumps, &dents] {
        assert_eq!(pulses.repetition(8), 1.0);
        // Nothing repeats after 7 steps, and after 9 neither.
        assert!(pulses.repetition(7) < 0.5 && pulses.repetition(9) < 0.5);
    }
    // Differences of the dents: odd harmonics k with powers of sin²(πk / 8), of which .146 at the first.
    let shares = dents.stride_spectrum(&[2, 4, 8]);
    assert!((shares[2] - 0.146).abs() < 2e-3 && shares[0] + shares[1] < 4e-3, "{shares:?}");
}

#[test]
fn neither_noise_nor_hills_repeat() {
    let mut rng = generator(0, Purpose::Noise, 0);
    let mut draw = |slopes: bool| {
        let mut values: Vec<f64> = (0..21 * 21).map(|_| rng.random_range(-0.5..0.5)).collect();
        for row in values.chunks_exact_mut(21).filter(|_| slopes) {
            (1..21).for_each(|column| row[column] += row[column - 1]);
        }
        SimilarityMap::new([21, 21], [10, 10], values).unwrap()
    };
    for slopes in [false, true] {
        let maps: Vec<SimilarityMap> = (0..100).map(|_| draw(slopes)).collect();
        let mean = |number: &dyn Fn(&SimilarityMap) -> f64| maps.iter().map(number).sum::<f64>() / 100.0;
        // One map's deviates by about 0.13 (in the map) or 0.08 (in its slopes): 0.013 for the mean of a hundred.
        let repetition = mean(&|map| map.repetition(8));
        assert!(repetition.abs() < 0.05, "{repetition}");
        // Slopes in random order: 3 / n = .15 twice and half of it once, of the 1 − 1.5 / n that the rows' means leave.
        let power = mean(&|map| map.stride_spectrum(&[2, 4, 8]).iter().sum());
        assert!(!slopes || (power - 0.375 / 0.925).abs() < 0.02, "{power}");
    }
    for middle in [0, 2, 5, 9] {
        for width in [1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 20.0_f64] {
            let square = |row: usize, column: usize| row.abs_diff(9).pow(2) + column.abs_diff(middle).pow(2);
            let hill = map(21, 21, |row, column| (-0.5 * square(row, column) as f64 / width.powi(2)).exp());
            assert!(hill.repetition(8).abs() < 0.1, "{middle}, {width}: {}", hill.repetition(8));
        }
    }
}

#[test]
fn rounding_has_no_structure() {
    let even = map(5, 21, |_, column| 0.1 * column as f64);
    assert_eq!((even.repetition(8), even.stride_spectrum(&[2, 4, 8])), (0.0, vec![0.0; 3]));
    // Too short for the period, and no period at all.
    let short = map(2, 10, |_, column| (column % 8) as f64);
    assert_eq!((short.repetition(8), short.repetition(0), short.repetition(usize::MAX)), (0.0, 0.0, 0.0));
    assert_eq!(short.stride_spectrum(&[0, 1, 10]), [0.0; 3]);
}

#[test]
fn maps_that_are_none_are_refused() {
    assert!(SimilarityMap::new([2, 2], [0, 0], vec![0.0; 3]).is_err());
    assert!(SimilarityMap::new([0, 2], [0, 0], vec![]).is_err());
    assert!(matches!(SimilarityMap::new([1, 2], [0, 2], vec![0.0; 2]), Err(Error::AnchorOutside { .. })));
    let error = SimilarityMap::new([2, 2], [0, 0], vec![0.0, 0.0, f64::NAN, 0.0]).unwrap_err();
    assert!(matches!(error, Error::NotFinite { position: [1, 0], .. }));
}

#[test]
fn a_table_has_a_row_a_position() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("map.csv");
    map(1, 2, |_, column| column as f64 / 2.0).write_csv(&path).unwrap();
    assert_eq!(std::fs::read_to_string(path).unwrap(), "row,column,similarity\n0,0,0\n0,1,0.5\n");
    let error = map(1, 1, |_, _| 1.0).write_csv(Path::new("/no/such/folder/map.csv")).unwrap_err();
    assert!(error.to_string().starts_with("/no/such/folder/map.csv"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn similarity_is_symmetric_bounded_and_one_for_equals(
        f in prop::collection::vec(-9.0_f32..9.0, 4), g in prop::collection::vec(-9.0_f32..9.0, 4), scale in 0.1_f32..9.0,
    ) {
        prop_assume!(f.iter().any(|x| x.abs() > 1e-3) && g.iter().any(|x| x.abs() > 1e-3));
        for (measure, low) in [(Similarity::Cosine, -1.0), (Similarity::Euclidean, 0.0)] {
            let there = measure.of(&f, &g).unwrap();
            // 64-bit sums of four products; the root of a difference keeps half the digits.
            prop_assert!((there - measure.of(&g, &f).unwrap()).abs() < 1e-12);
            prop_assert!((measure.of(&f, &f).unwrap() - 1.0).abs() < 1e-6);
            prop_assert!((low - 1e-9..=1.0 + 1e-9).contains(&there));
        }
        let scaled: Vec<f32> = f.iter().map(|x| x * scale).collect();
        let cosine = |f: &[f32]| Similarity::Cosine.of(f, &g).unwrap();
        // The scaled vector is rounded to 24 bits.
        prop_assert!((cosine(&f) - cosine(&scaled)).abs() < 1e-5);
    }

    #[test]
    fn drops_stay_within_the_range_of_the_map(values in prop::collection::vec(-1.0_f64..1.0, 12)) {
        let map = SimilarityMap::new([3, 4], [1, 2], values).unwrap();
        for drop in [map.local_drop(1), map.local_drop(9), map.global_drop()] {
            prop_assert!((0.0..=2.0).contains(&drop));
        }
        prop_assert!(map.jaggedness() >= 0.0);
        prop_assert!(map.stride_spectrum(&[2, 3]).iter().all(|share| (0.0..=1.0 + 1e-9).contains(share)));
    }

    #[test]
    fn nothing_repeats_better_than_exactly(values in prop::collection::vec(-1.0_f64..1.0, 2 * 9), period in 0_usize..12) {
        prop_assert!(SimilarityMap::new([2, 9], [0, 0], values).unwrap().repetition(period) <= 1.0);
    }
}

#[test]
fn a_picture_has_the_colours_of_the_page() {
    // From .5 to 1 in eight steps of .0625: .75 is the fifth point, .875 the seventh, .53125 halfway between the first two.
    let map = SimilarityMap::new([2, 3], [0, 0], vec![1.0, 0.75, 0.5, 0.53125, -1.0, 0.875]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("map.png");
    map.write_png(&path, 0.5).unwrap();
    let image = image::open(&path).unwrap().to_rgb8();
    assert_eq!(image.dimensions(), (3, 2));
    let pixels: Vec<[u8; 3]> = image.pixels().map(|pixel| pixel.0).collect();
    let expected = [[253, 231, 37], [33, 145, 140], [68, 1, 84], [70, 23, 104], [68, 1, 84], [94, 201, 98]];
    assert_eq!(pixels, expected);
    let points = VIRIDIS.map(|[red, green, blue]| format!("[{red},{green},{blue}]")).join(",");
    assert!(include_str!("../page/template.html").contains(&format!("VIRIDIS = [{points}]")));
    for low in [1.0, f64::NAN] {
        assert!(map.write_png(&path, low).unwrap_err().to_string().starts_with("lowest colour is"));
    }
    let nowhere = map.write_png(&folder.path().join("none/map.png"), 0.5);
    assert!(matches!(nowhere, Err(Error::Write { .. })));
}
