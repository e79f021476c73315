use super::*;
use crate::fas::synth::{Domain, MaskMaterial, Population, SceneSpec, Species};
use proptest::prelude::*;
use std::fs;

/// Empty files at paths under a new folder.
fn tree(files: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for file in files {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"").unwrap();
    }
    root
}

const FIRST: Fold = Fold { protocol: 1, fold: None };

/// A presentation of somebody, without frames.
fn of(set: &str, subject: &str) -> Presentation {
    Presentation {
        set: set.into(),
        name: String::new(),
        frames: Vec::new(),
        faces: Vec::new(),
        bona_fide: true,
        species: None,
        subject: subject.into(),
        camera: None,
        light: None,
    }
}

#[test]
fn oulu_lists_become_presentations() {
    let root = tree(&["Train_files/1_1_01_1/0.png", "Train_files/1_1_01_2/0.png", "Train_files/1_1_01_5/0.png"]);
    fs::create_dir_all(root.path().join("Protocols/Protocol_1")).unwrap();
    let list = root.path().join("Protocols/Protocol_1/Train.txt");
    fs::write(&list, "+1,1_1_01_1\n-1,1_1_01_2\n\n-2,1_1_01_5\n").unwrap();
    let found = oulu_npu(root.path(), FIRST, Split::Train).unwrap();
    let species: Vec<_> = found.iter().map(|p| p.species.as_deref()).collect();
    assert_eq!(species, [None, Some("print/2"), Some("replay/5")]);
    assert!(found[0].bona_fide && found.iter().all(|p| p.subject == "01" && p.frames.len() == 1));
    assert!(found.iter().all(|p| p.faces.is_empty()));
    let taken = |p: &Presentation| (p.camera.clone(), p.light.clone());
    assert!(found.iter().all(|p| taken(p) == (Some("1".into()), Some("1".into()))));

    let eyes = root.path().join("Train_files/1_1_01_2.txt");
    fs::write(&eyes, "0,40,50,60,50\n").unwrap();
    let found = oulu_npu(root.path(), FIRST, Split::Train).unwrap();
    assert_eq!(found.iter().map(|p| p.faces.len()).collect::<Vec<_>>(), [0, 1, 0]);
    fs::write(&eyes, "0,40,50,60,50\n1,40,50").unwrap();
    let error = oulu_npu(root.path(), FIRST, Split::Train).unwrap_err();
    assert!(matches!(&error, Error::Parse { file, line: 2, .. } if *file == eyes), "{error}");
    fs::remove_file(eyes).unwrap();

    for (text, line) in [("+1,1_1_01_1\n-1 1_1_01_2\n", 2), ("x,1_1_01_1", 1), ("+1,1_1_01_2", 1), ("-1,1_1_01_7", 1)] {
        fs::write(&list, text).unwrap();
        let error = oulu_npu(root.path(), FIRST, Split::Train).unwrap_err();
        assert!(matches!(&error, Error::Parse { file, line: at, .. } if *file == list && *at == line), "{error}");
    }
    fs::write(&list, "+1,1_1_02_1\n-1,1_1_02_2\n").unwrap();
    let error = oulu_npu(root.path(), FIRST, Split::Train).unwrap_err();
    assert!(matches!(&error, Error::MissingFiles { files } if files.len() == 2), "{error}");
    fs::write(&list, "+1,1_1_01_1\n").unwrap();
    assert!(matches!(oulu_npu(root.path(), FIRST, Split::Train), Err(Error::EmptyClass { class: "attack" })));
}

#[test]
fn protocols_and_folds_that_do_not_exist_are_refused() {
    let nowhere = Path::new("nowhere");
    for fold in [(5, None), (3, None), (3, Some(7)), (1, Some(1))] {
        let fold = Fold { protocol: fold.0, fold: fold.1 };
        assert!(matches!(oulu_npu(nowhere, fold, Split::Dev), Err(Error::BadProtocol { .. })), "{fold:?}");
    }
    assert!(matches!(casia_mfsd(nowhere, Split::Dev), Err(Error::BadProtocol { .. })));
    assert!(matches!(msu_mfsd(nowhere, Split::Dev), Err(Error::BadProtocol { .. })));
    assert!(matches!(siw(nowhere, Fold { protocol: 2, fold: Some(9) }, Split::Train), Err(Error::BadProtocol { .. })));
    let list = oulu_npu(nowhere, FIRST, Split::Dev).unwrap_err();
    assert!(list.to_string().contains("Protocols/Protocol_1/Dev.txt"), "{list}");
}

#[test]
fn folders_of_the_other_sets_become_presentations() {
    let casia = tree(&["train_release/7/HR_1/a.jpeg", "train_release/7/5/a.png", "train_release/7/8/a.png"]);
    let found = casia_mfsd(casia.path(), Split::Train).unwrap();
    let species: Vec<_> = found.iter().map(|p| p.species.as_deref()).collect();
    assert_eq!(species, [Some("print/cut"), Some("replay/tablet"), None]);
    let tested = tree(&["test_release/7/1/a.png", "test_release/7/5/a.png"]);
    let tested = casia_mfsd(tested.path(), Split::Test).unwrap();
    // Both parts have a seventh person, and they are two.
    assert!(check_disjoint(&found, &tested).is_ok() && found[0].video() != tested[1].video());

    let replay = tree(&[
        "devel/real/client009_session01_webcam_authenticate_adverse_1/0.png",
        "devel/attack/fixed/attack_highdef_client009_session01_highdef_photo_adverse/0.png",
        "devel/attack/hand/attack_print_client009_session01_highdef_photo_adverse/0.png",
        "devel/attack/hand/attack_highdef_client009_session01_highdef_photo_adverse/0.png",
    ]);
    let held = "face-locations/devel/attack/hand/attack_highdef_client009_session01_highdef_photo_adverse.face";
    let held = replay.path().join(held);
    fs::create_dir_all(held.parent().unwrap()).unwrap();
    fs::write(held, "1 10 20 30 40\n").unwrap();
    let found = replay_attack(replay.path(), Split::Dev).unwrap();
    let species: Vec<_> = found.iter().map(|p| p.species.as_deref()).collect();
    let held = Some("highdef_photo/hand");
    assert_eq!(species, [None, Some("highdef_photo/fixed"), held, Some("print/hand")]);
    assert!(found.iter().all(|p| p.subject == "009") && found[1].video() != found[2].video());
    let face = PixelBox { x: 10.0, y: 20.0, width: 30.0, height: 40.0 };
    assert_eq!(found.iter().map(|p| p.faces.len()).collect::<Vec<_>>(), [0, 0, 1, 0]);
    assert_eq!(found[2].faces, [face]);
    assert!(
        matches!(replay_attack(replay.path(), Split::Test), Err(Error::MissingFiles { files }) if files.len() == 3)
    );

    let msu = tree(&[
        "scene01/real/real_client002_android_SD_scene01/0.png",
        "scene01/real/real_client003_android_SD_scene01/0.png",
        "scene01/attack/attack_client002_android_SD_ipad_video_scene01/0.png",
        "scene01/attack/attack_client002_laptop_SD_printed_photo_scene01/0.png",
    ]);
    fs::write(msu.path().join("test_sub_list.txt"), "02\n").unwrap();
    fs::write(msu.path().join("scene01/real/real_client002_android_SD_scene01.face"), "0,10,20,40,60,1,2,3,4").unwrap();
    let found = msu_mfsd(msu.path(), Split::Test).unwrap();
    assert!(found[0].faces == [face] && found[1].faces.is_empty());
    let species: Vec<_> = found.iter().map(|p| p.species.as_deref()).collect();
    assert_eq!(species, [None, Some("replay/ipad"), Some("print/photo")]);

    let siw_root = tree(&[
        "Train/live/003/003-1-1-1-1/0.png",
        "Train/spoof/003/003-1-2-1-1/0.png",
        "Train/spoof/003/003-1-3-2-1/0.png",
    ]);
    fs::write(siw_root.path().join("Train/live/003/003-1-1-1-1.face"), "10 20 40 60\n").unwrap();
    let all = siw(siw_root.path(), FIRST, Split::Train).unwrap();
    assert!(all.len() == 3 && all[0].faces == [face] && all[1].faces.is_empty());
    let prints = siw(siw_root.path(), Fold { protocol: 3, fold: Some(1) }, Split::Train).unwrap();
    assert_eq!(prints.iter().filter_map(|p| p.species.as_deref()).collect::<Vec<_>>(), ["print/1"]);
    fs::create_dir(siw_root.path().join("Train/live/003/003-1-2-1-2")).unwrap();
    let misplaced = siw(siw_root.path(), FIRST, Split::Train);
    assert!(matches!(misplaced, Err(Error::Unreadable { file, .. }) if file.ends_with("003-1-2-1-2")));

    let siwm = tree(&["Live/Live_1/0.png", "Spoof/Silicone/Silicone_1/0.png"]);
    let list = siwm.path().join("list.txt");
    fs::write(&list, "Live_1\nLive_1\nSilicone_1\n").unwrap();
    let found = siw_m(siwm.path(), &[&list]).unwrap();
    assert_eq!(found.iter().map(|p| p.species.as_deref()).collect::<Vec<_>>(), [None, Some("Silicone")]);
    assert!(check_disjoint(&found[..1], &found[1..]).is_ok());
    fs::write(&list, "Live_1\nMakeup_2\n").unwrap();
    assert!(matches!(siw_m(siwm.path(), &[&list]), Err(Error::MissingFiles { .. })));
}

#[test]
fn names_that_lead_out_of_the_folder_are_refused() {
    let siwm = tree(&["set/Live/Live_1/0.png", "set/Spoof/Silicone/Silicone_1/0.png", "beside/0.png"]);
    let (root, list) = (siwm.path().join("set"), siwm.path().join("list.txt"));
    let beside = siwm.path().join("beside");
    for name in ["../../beside", "./Live_1", beside.to_str().unwrap()] {
        fs::write(&list, format!("Silicone_1\n{name}\n")).unwrap();
        let refused = siw_m(&root, &[&list]);
        assert!(matches!(refused, Err(Error::Parse { line: 2, .. })), "{name}: {refused:?}");
    }

    let oulu = tree(&["Train_files/1_1_01_1/0.png", "1_1_01_1/0.png"]);
    fs::create_dir_all(oulu.path().join("Protocols/Protocol_1")).unwrap();
    fs::write(oulu.path().join("Protocols/Protocol_1/Train.txt"), "+1,../1_1_01_1\n").unwrap();
    let refused = oulu_npu(oulu.path(), FIRST, Split::Train);
    assert!(matches!(refused, Err(Error::Parse { line: 1, .. })), "{refused:?}");

    let labels = oulu.path().join("labels.json");
    fs::write(&labels, serde_json::json!({ "../1_1_01_1/0.png": vec![0; 44] }).to_string()).unwrap();
    let refused = celeba_spoof(&oulu.path().join("Train_files"), &labels).unwrap_err().to_string();
    assert!(refused.contains("below the data folder"), "{refused}");
}

#[test]
fn celeba_spoof_is_read_with_its_boxes() {
    let root = tempfile::tempdir().unwrap();
    let mut table = serde_json::Map::new();
    for (name, kind, label) in [("Data/train/12/live/1.png", 0, 0), ("Data/train/12/spoof/2.png", 7, 1)] {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::new(448, 224).save(&path).unwrap();
        fs::write(
            path.with_file_name(format!("{}_BB.txt", path.file_stem().unwrap().to_str().unwrap())),
            "10 20 100 50 0.99",
        )
        .unwrap();
        let mut numbers = vec![0; 44];
        (numbers[40], numbers[43]) = (kind, label);
        (numbers[41], numbers[42]) = (3 * label, 2 * label);
        table.insert(name.into(), numbers.into());
    }
    let labels = root.path().join("train_label.json");
    fs::write(&labels, serde_json::Value::Object(table).to_string()).unwrap();
    let found = celeba_spoof(root.path(), &labels).unwrap();
    assert_eq!(found[1].species.as_deref(), Some("replay/pc"));
    assert_eq!(found[0].subject, "12");
    assert_eq!((found[0].light.as_deref(), found[1].light.as_deref()), (None, Some("3/2")));
    // 224ths of 448 and 224 pixels.
    assert_eq!(found[0].faces, [PixelBox { x: 20.0, y: 20.0, width: 200.0, height: 50.0 }]);

    let beside = root.path().join("Data/train/12/live/1_BB.txt");
    fs::write(&beside, "900 20 100 50 0.9").unwrap();
    assert!(matches!(celeba_spoof(root.path(), &labels), Err(Error::BoxOutside { file, .. }) if file == beside));
    fs::write(&beside, "10 20 inf 50 0.9").unwrap();
    assert!(matches!(celeba_spoof(root.path(), &labels), Err(Error::BoxOutside { file, .. }) if file == beside));
    fs::write(&beside, "10 twenty").unwrap();
    assert!(matches!(celeba_spoof(root.path(), &labels), Err(Error::Parse { file, .. }) if file == beside));
    fs::remove_file(&beside).unwrap();
    assert!(matches!(celeba_spoof(root.path(), &labels), Err(Error::MissingFiles { files }) if files == [beside]));
    fs::write(&labels, "{\"a.png\": [1, 2]}").unwrap();
    assert!(celeba_spoof(root.path(), &labels).unwrap_err().to_string().contains("a.png"));
    // Whose picture it is cannot be told.
    fs::write(&labels, serde_json::json!({ "live/1.png": vec![0; 44] }).to_string()).unwrap();
    assert!(celeba_spoof(root.path(), &labels).unwrap_err().to_string().contains("<person>"));
}

#[test]
fn unreadable_frames_are_named() {
    let root = tree(&["broken.png"]);
    let path = root.path().join("broken.png");
    assert!(matches!(read_frame(&path), Err(Error::Unreadable { file, .. }) if file == path));
}

#[test]
fn frames_are_sampled_as_cross_database_papers_do() {
    assert_eq!(Frames::Two.of(100), [6, 56]);
    assert_eq!(Frames::Two.of(4), [3, 3]);
    assert_eq!(Frames::One.of(100), [6]);
    assert_eq!(Frames::Evenly(2).of(8), [2, 6]);
    assert_eq!(Frames::First(3).of(100), [0, 1, 2]);
    assert_eq!(Frames::First(60).of(2), [0, 1]);
    assert!(Frames::All.of(0).is_empty());
}

/// Names as the sets have them, and as many as they have at least.
#[test]
fn people_of_the_published_sets_have_numbers_of_their_own() {
    let mut names: Vec<(&str, String)> = Vec::new();
    for (set, count, width) in [
        ("oulu-npu", 55, 2),
        ("replay-attack", 50, 3),
        ("msu-mfsd", 55, 3),
        ("siw", 165, 3),
        ("celeba-spoof", 10_177, 0),
    ] {
        names.extend((1..=count).map(|who| (set, format!("{who:0width$}"))));
    }
    for (part, count) in [("train_release", 20), ("test_release", 30)] {
        names.extend((1..=count).map(|who| ("casia-mfsd", format!("{part}/{who}"))));
    }
    names
        .extend((1..=1000).flat_map(|at| ["Live", "Paper", "Mask_Half"].map(|kind| ("siw-m", format!("{kind}_{at}")))));
    let numbers: BTreeSet<u32> = names.iter().map(|(set, subject)| of(set, subject).person()).collect();
    assert_eq!(numbers.len(), names.len());
}

fn any_protocol() -> impl Strategy<Value = Protocol> {
    let domain = prop::sample::select(Domain::ALL.to_vec());
    prop_oneof![
        Just(Protocol::UnseenLight),
        Just(Protocol::UnseenInstrument),
        domain.clone().prop_map(Protocol::UnseenCamera),
        domain.clone().prop_map(Protocol::UnseenAll),
        domain.prop_map(Protocol::LeaveOneDomainOut),
        prop::sample::select(Species::ATTACKS.to_vec()).prop_map(Protocol::LeaveOneSpeciesOut),
        prop::sample::select(MaskMaterial::ALL.to_vec()).prop_map(Protocol::LeaveOneMaterialOut),
    ]
}

proptest! {
    #[test]
    fn people_never_cross_parts_and_pictures_are_used_once(protocol in any_protocol(), identities in 6_u32..20) {
        let specs = Population { identities, ..Population::default() }.specs();
        let plan = protocol.split(&specs).unwrap();
        let people = |part: &[usize]| -> BTreeSet<u32> { part.iter().map(|&at| specs[at].identity).collect() };
        let parts = [plan.train(), plan.dev(), plan.test()];
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            prop_assert!(people(parts[a]).is_disjoint(&people(parts[b])));
        }
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let distinct: BTreeSet<usize> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        prop_assert_eq!(total, distinct.len());
    }
}

#[test]
fn a_leak_names_the_people() {
    let specs: Vec<SceneSpec> = Population { identities: 2, ..Population::quick() }.specs();
    let leak = SplitPlan::new(&specs, [vec![0], vec![1], vec![20]]).unwrap_err();
    assert!(matches!(&leak, Error::IdentityLeak { ids } if ids == &["0"]), "{leak}");
    let outside = SplitPlan::new(&specs, [vec![0], vec![specs.len()], vec![]]);
    assert!(matches!(outside, Err(Error::BadParam { name: "position of a picture", .. })), "{outside:?}");
    let one = [of("siw", "1"), of("siw", "2")];
    assert!(check_disjoint(&one, &[of("siw", "3"), of("siw-m", "1")]).is_ok());
    assert!(matches!(check_disjoint(&one, &one[1..]), Err(Error::IdentityLeak { ids }) if ids == ["siw/2"]));
    assert!(Protocol::LeaveOneSpeciesOut(Species::Live).split(&specs).is_err());
}
