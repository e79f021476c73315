use super::*;
use core_tensor::seed::{Purpose, generator};
use proptest::prelude::*;
use rand::Rng;
use tch::{Device, Kind};

/// Coordinates on a small grid, so that ties are common.
fn grid(count: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut rng = generator(seed, Purpose::Data, 0);
    (0..count * dim).map(|_| rng.random_range(-2_i32..3) as f32).collect()
}

fn tensor(values: &[f32], dim: usize) -> Tensor {
    Tensor::from_slice(values).view([-1, dim as i64])
}

/// All distances, sorted: what is stated, word for word.
fn brute_force(queries: &[f32], gallery: &[f32], dim: usize, k: usize, itself: bool) -> Vec<Vec<u32>> {
    let rows = |values: &[f32]| values.chunks(dim).map(<[f32]>::to_vec).collect::<Vec<_>>();
    let (queries, gallery) = (rows(queries), rows(gallery));
    let of = |(number, query): (usize, &Vec<f32>)| {
        let mut all: Vec<(f32, u32)> = gallery
            .iter()
            .enumerate()
            .filter(|(position, _)| !itself || *position != number)
            .map(|(position, other)| {
                let squares = query.iter().zip(other).map(|(a, b)| (a - b) * (a - b));
                (squares.sum::<f32>(), position as u32)
            })
            .collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        all.into_iter().take(k).map(|(_, position)| position).collect()
    };
    queries.iter().enumerate().map(of).collect()
}

#[test]
fn neighbours_of_points_on_a_line() {
    let points = tensor(&[0.0, 1.0, 2.1, 3.3, 6.0, 6.4, 7.5], 1);
    let index = RetrievalIndex::exact(&points, Distance::Euclidean).unwrap();
    let found = index.search_itself(6).unwrap();
    assert_eq!(found.of(0).0, [1, 2, 3, 4, 5, 6]);
    assert_eq!(found.of(2).0, [1, 3, 0, 4, 5, 6]);
    assert_eq!(found.of(3).0, [2, 1, 4, 5, 0, 6]);
    assert!((found.of(2).1[0] - 1.1).abs() < 1e-6 && found.queries() == 7 && found.k() == 6);
}

#[test]
fn cosines_rank_by_direction() {
    let gallery = tensor(&[10.0, 0.0, 0.0, 0.1, -1.0, 0.0, 3.0, 3.0], 2);
    let index = RetrievalIndex::exact(&gallery, Distance::Cosine).unwrap();
    let found = index.search(&tensor(&[0.2, 0.19], 2), 4).unwrap();
    assert_eq!(found.of(0).0, [3, 0, 1, 2]);
    // 1 − cos(45°) between the first and the last.
    let diagonal = index.search_itself(1).unwrap();
    assert!((diagonal.of(0).1[0] - (1.0 - 0.5_f32.sqrt())).abs() < 1e-6);
}

#[test]
fn duplicates_count_and_an_item_never_finds_itself() {
    let index = RetrievalIndex::exact(&tensor(&[1.0, 1.0, 1.0, 5.0], 1), Distance::Euclidean).unwrap();
    let found = index.search_itself(2).unwrap();
    assert_eq!([found.of(0).0, found.of(1).0, found.of(2).0], [[1, 2], [0, 2], [0, 1]]);
}

#[test]
fn what_cannot_be_searched_is_refused() {
    let gallery = tensor(&[0.0, 0.0, 1.0, 2.0], 2);
    let index = RetrievalIndex::exact(&gallery, Distance::Euclidean).unwrap();
    assert!(matches!(index.search(&gallery, 3), Err(Error::TooManyNeighbours { k: 3, gallery: 2 })));
    assert!(matches!(index.search_itself(2), Err(Error::TooManyNeighbours { k: 2, gallery: 1 })));
    assert!(index.search(&gallery, 0).is_err() && index.search(&gallery.view([4, 1]), 1).is_err());
    assert!(matches!(RetrievalIndex::exact(&gallery, Distance::Cosine), Err(Error::ZeroNorm { position: 0 })));
    let broken = tensor(&[0.0, f32::NAN], 1);
    let refused = RetrievalIndex::exact(&broken, Distance::Euclidean);
    assert!(matches!(refused, Err(Error::NotFinite { position: 1, .. })));
    // 1e20² is above the largest f32.
    let long = RetrievalIndex::exact(&tensor(&[0.0, 1e20], 1), Distance::Euclidean);
    assert!(matches!(long, Err(Error::NotFinite { position: 1, .. })));
    let empty = Tensor::zeros([0, 2], (Kind::Float, Device::Cpu));
    assert!(matches!(RetrievalIndex::exact(&empty, Distance::Euclidean), Err(Error::Empty("gallery"))));
    assert!(RetrievalIndex::exact(&gallery.view([4]), Distance::Euclidean).is_err());
}

#[test]
fn both_ways_of_searching_a_set_agree() {
    // Three blocks, the last one partly filled.
    let set = tensor(&grid(2 * BLOCK + 37, 3, 5), 3);
    let index = RetrievalIndex::exact(&set, Distance::Euclidean).unwrap();
    assert_eq!(index.search_itself(9).unwrap(), index.block_by_block(&index.gallery, 9, true));
}

/// ‖v‖² of 5e10 is known to 2,048, products to no better, and all distances are below 10.
#[test]
fn a_shift_of_everything_changes_no_neighbour() {
    let moved = |values: &[f32]| tensor(&values.iter().map(|value| value + 1e5).collect::<Vec<_>>(), 5);
    let (rows, asked) = (grid(300, 5, 3), grid(40, 5, 4));
    let near = RetrievalIndex::exact(&tensor(&rows, 5), Distance::Euclidean).unwrap();
    let far = RetrievalIndex::exact(&moved(&rows), Distance::Euclidean).unwrap();
    assert_eq!(near.search_itself(9).unwrap(), far.search_itself(9).unwrap());
    assert_eq!(near.search(&tensor(&asked, 5), 9).unwrap(), far.search(&moved(&asked), 9).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn blocked_search_is_brute_force(
        gallery in 2_usize..700, queries in 1_usize..60, dim in 1_usize..6, k in 1_usize..40, seed in 0_u64..1000,
    ) {
        // Integers, so that every distance is exact in f32 and ties are ties.
        let (rows, asked) = (grid(gallery, dim, seed), grid(queries, dim, seed + 1));
        let index = RetrievalIndex::exact(&tensor(&rows, dim), Distance::Euclidean).unwrap();
        let k_other = k.min(gallery);
        let found = index.search(&tensor(&asked, dim), k_other).unwrap();
        for (query, expected) in brute_force(&asked, &rows, dim, k_other, false).iter().enumerate() {
            prop_assert_eq!(found.of(query).0, expected);
        }
        let k_itself = k.min(gallery - 1);
        let found = index.search_itself(k_itself).unwrap();
        for (query, expected) in brute_force(&rows, &rows, dim, k_itself, true).iter().enumerate() {
            prop_assert_eq!(found.of(query).0, expected);
        }
    }
}
