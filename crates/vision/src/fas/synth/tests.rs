use super::*;
use proptest::prelude::*;

fn small() -> Generator {
    Generator::new(5, GeneratorConfig { raster: 48, crop: 32, map: 8 }).unwrap()
}

fn spec(attack: Attack) -> SceneSpec {
    SceneSpec::new(3, Domain::OfficeHd, attack, 1)
}

#[test]
fn the_same_description_gives_the_same_bytes_on_any_number_of_threads() {
    let specs = Population { identities: 2, live: 2, print: 2, replay: 2, mask: 1, ..Population::quick() }.specs();
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| small().render_all(&specs[..9]).unwrap())
    };
    let (one, two) = (on(1), on(2));
    assert_eq!(one, two);
    assert_eq!(one[4], small().render(&specs[4]).unwrap());
}

#[test]
fn another_mask_material_leaves_depth_bit_for_bit_alone() {
    let of = |material| small().render(&spec(Attack::Mask(material))).unwrap();
    let (resin, silicone) = (of(MaskMaterial::Resin), of(MaskMaterial::Silicone));
    assert_eq!(resin.depth, silicone.depth);
    assert_ne!(resin.material, silicone.material);
    assert_ne!(resin.image, silicone.image);
}

#[test]
fn another_light_leaves_depth_and_material_alone() {
    let first = small().render(&spec(Attack::Live)).unwrap();
    let second = small().render(&SceneSpec { relight: 1, ..spec(Attack::Live) }).unwrap();
    assert_eq!((&first.depth, &first.material), (&second.depth, &second.material));
    assert_ne!(first.image, second.image);
}

#[test]
fn another_frame_keeps_the_person_and_turns_a_little() {
    let first = small().render(&spec(Attack::Live)).unwrap();
    let second = small().render(&SceneSpec { frame: 1, ..spec(Attack::Live) }).unwrap();
    assert!((first.attributes.yaw - second.attributes.yaw).abs() <= 2.0);
    assert_ne!(first.image, second.image);
    assert_eq!(first.attributes.melanin, second.attributes.melanin);
}

/// Root mean square of what is left of a map after the best plane through it, within cells fully on the object and
/// within the map's range.
fn off_plane(picture: &Rendered) -> f64 {
    let size = 8;
    let points: Vec<[f64; 3]> = (0..size * size)
        .filter(|&at| picture.material[at] < 1e-6 && (0.01..0.99).contains(&picture.depth[at]))
        .map(|at| [(at % size) as f64, (at / size) as f64, f64::from(picture.depth[at])])
        .collect();
    assert!(points.len() >= 12, "{} cells on the object", points.len());
    // Normal equations of z = a + b x + c y, solved by Gauss–Jordan elimination.
    let mut m = [[0.0_f64; 4]; 3];
    for [x, y, z] in &points {
        let row = [1.0, *x, *y];
        for i in 0..3 {
            (0..3).for_each(|j| m[i][j] += row[i] * row[j]);
            m[i][3] += row[i] * z;
        }
    }
    for i in 0..3 {
        let pivot = m[i][i];
        m[i].iter_mut().for_each(|value| *value /= pivot);
        for k in 0..3 {
            if k != i {
                let (factor, row) = (m[k][i], m[i]);
                m[k].iter_mut().zip(row).for_each(|(value, other)| *value -= factor * other);
            }
        }
    }
    let squares: f64 = points.iter().map(|[x, y, z]| (z - m[0][3] - m[1][3] * x - m[2][3] * y).powi(2)).sum();
    (squares / points.len() as f64).sqrt()
}

#[test]
fn screens_have_no_relief_and_faces_do() {
    let generator = small();
    for video in 0..3 {
        let of = |attack| generator.render(&SceneSpec { video, ..spec(attack) }).unwrap();
        // Perspective bends the image of a plane tilted by up to 28° by a few mm of 110.
        let screen = off_plane(&of(Attack::Replay(1)));
        let face = off_plane(&of(Attack::Live));
        let mask = off_plane(&of(Attack::Mask(MaskMaterial::Resin)));
        assert!(screen < 0.03, "a screen {screen}");
        assert!(face > 0.05 && mask > 0.05, "a face {face}, a mask {mask}");
    }
}

#[test]
fn materials_are_those_presented() {
    let generator = small();
    let share = |attack: Attack, class: MaterialClass| {
        let picture = generator.render(&spec(attack)).unwrap();
        picture.material[class as usize * 64..(class as usize + 1) * 64].iter().sum::<f32>() / 64.0
    };
    assert!(share(Attack::Live, MaterialClass::Skin) > 0.3);
    assert!(share(Attack::Print(0), MaterialClass::Paper) > 0.5);
    assert!(share(Attack::Replay(0), MaterialClass::Display) > 0.5);
    assert!(share(Attack::Mask(MaskMaterial::Silicone), MaterialClass::Silicone) > 0.3);
    let cut = share(Attack::CutPrint(0), MaterialClass::Skin) + share(Attack::CutPrint(0), MaterialClass::Hair);
    assert!(cut > 0.0 && cut < 0.1, "{cut} of a cut print is the attacker");
}

#[test]
fn what_does_not_exist_is_refused() {
    let generator = small();
    for (attack, name) in
        [(Attack::Print(3), "printer"), (Attack::CutPrint(9), "printer"), (Attack::Replay(4), "display")]
    {
        let error = generator.render(&spec(attack)).unwrap_err();
        assert!(matches!(error, Error::BadParam { name: found, .. } if found == name), "{error}");
    }
    assert!(generator.render(&SceneSpec { session: 3, ..spec(Attack::Live) }).is_err());
    for config in [
        GeneratorConfig { raster: 0, ..GeneratorConfig::default() },
        GeneratorConfig { crop: 4, ..GeneratorConfig::default() },
        GeneratorConfig { map: 65, ..GeneratorConfig::default() },
    ] {
        assert!(matches!(Generator::new(0, config), Err(Error::BadParam { .. })));
    }
}

/// Of the crop's inner quarter: mean linear luminance, and the red and green share of its linear light.
fn seen_in_the_middle(picture: &Rendered) -> (f64, [f64; 2]) {
    let linear = |byte: u8| {
        let value = f64::from(byte) / 255.0;
        if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    let pixels = (8..24).flat_map(|row| (8..24).map(move |column| (row * 32 + column) * 3));
    let sums = pixels.fold([0.0; 3], |sums: [f64; 3], at| {
        std::array::from_fn(|channel| sums[channel] + linear(picture.image[at + channel]))
    });
    let [red, green, blue] = sums;
    let total = red + green + blue;
    (0.2126 * red + 0.7152 * green + 0.0722 * blue, [red / total, green / total])
}

/// The share of pairs in which the first is larger.
fn auc(live: &[f64], attack: &[f64]) -> f64 {
    let wins: usize = live.iter().map(|l| attack.iter().filter(|a| l > *a).count()).sum();
    wins as f64 / (live.len() * attack.len()) as f64
}

#[test]
fn neither_brightness_nor_colour_tells_live_from_attack() {
    // 10 people × 8 live + 11 attacks in each domain; an AUC of pure chance has a standard error of 0.04.
    let population = Population { identities: 10, ..Population::default() };
    let pictures = small().render_all(&population.specs()).unwrap();
    let seen = |keep: &dyn Fn(&SceneSpec) -> bool| -> Vec<(f64, [f64; 2])> {
        pictures.iter().filter(|picture| keep(&picture.attributes.spec)).map(seen_in_the_middle).collect()
    };
    for domain in Domain::ALL {
        let brightness = |live: bool| -> Vec<f64> {
            let of = seen(&|spec| spec.domain == domain && spec.attack.is_live() == live);
            of.into_iter().map(|(brightness, _)| brightness).collect()
        };
        let told = auc(&brightness(true), &brightness(false));
        assert!((0.35..=0.65).contains(&told), "{domain:?}: {told}");
    }
    let mean = |species: Species| {
        let of = seen(&|spec| spec.attack.species() == species);
        [0, 1].map(|axis| of.iter().map(|(_, chromaticity)| chromaticity[axis]).sum::<f64>() / of.len() as f64)
    };
    let live = mean(Species::Live);
    for species in Species::ATTACKS {
        let apart = mean(species).iter().zip(live).map(|(one, other)| (one - other).abs()).fold(0.0, f64::max);
        assert!(apart < 0.03, "{species:?}: {apart}");
    }
}

fn any_attack() -> impl Strategy<Value = Attack> {
    prop_oneof![
        Just(Attack::Live),
        (0_u8..3).prop_map(Attack::Print),
        (0_u8..3).prop_map(Attack::CutPrint),
        (0_u8..4).prop_map(Attack::Replay),
        prop::sample::select(MaskMaterial::ALL.to_vec()).prop_map(Attack::Mask),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn every_picture_has_maps_in_range_and_a_face_in_its_box(
        identity in 0_u32..50, attack in any_attack(), video in 0_u32..9, frame in 0_u8..2, session in 0_u8..3,
        domain in prop::sample::select(Domain::ALL.to_vec()),
    ) {
        let spec = SceneSpec { identity, domain, attack, session, video, frame, relight: 0 };
        let picture = small().render(&spec).unwrap();
        prop_assert!(picture.depth.iter().chain(&picture.reflection).all(|value| (0.0..=1.0001).contains(value)));
        for cell in 0..64 {
            let sum: f32 = (0..7).map(|class| picture.material[class * 64 + cell]).sum();
            prop_assert!((sum - 1.0).abs() < 1e-4);
        }
        // 300 mm over 96 pixels: a face of 160 to 230 mm in a square of 1.1 times that.
        prop_assert!((48.0..=100.0).contains(&picture.face_box.side), "{:?}", picture.face_box);
        let mean: f64 = picture.image.iter().map(|&v| f64::from(v)).sum::<f64>() / picture.image.len() as f64;
        prop_assert!((10.0..245.0).contains(&mean), "mean {}", mean);
    }
}
