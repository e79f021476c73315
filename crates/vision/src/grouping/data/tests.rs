use super::*;
use core_tensor::data::{Augmentation, BatchSource, Framing, ImageFolder, ImageShape, Samples, Transform};
use std::fs;

use crate::grouping::{PkLoader, PkSampler};

/// A grey PNG of its own size.
fn picture(folder: &Path, name: &str, side: u32) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::RgbImage::from_pixel(side, side + 1, image::Rgb([10, 20, 30]))
        .save_with_format(path, image::ImageFormat::Png)
        .unwrap();
}

#[test]
fn cub_is_split_by_class_number() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    // Classes 101, 1, 1, 200: out of order in the list.
    let names = ["101.b/x.jpg", "001.a/y.jpg", "001.a/z.jpg", "200.c/w.jpg"];
    names.iter().for_each(|name| picture(root, &format!("images/{name}"), 4));
    let images: String = names.iter().enumerate().map(|(i, name)| format!("{} {name}\n", i + 1)).collect();
    fs::write(root.join("images.txt"), &images).unwrap();
    fs::write(root.join("image_class_labels.txt"), "1 101\n2 1\n3 1\n4 200\n").unwrap();
    let split = cub200(root).unwrap();
    assert_eq!((split.train.labels(), split.test.labels()), (&[0, 0][..], &[0, 1][..]));
    assert_eq!(
        (split.train.classes(), split.test.classes()),
        (&["1".to_owned()][..], &["101".into(), "200".into()][..])
    );
    // The channels of a pixel come apart: red first.
    let seen = split.train.image(0).unwrap();
    assert_eq!((seen.shape.size(), seen.pixels[0], seen.pixels[20], seen.pixels[40]), ([5, 4], 10, 20, 30));

    fs::write(root.join("image_class_labels.txt"), "1 101\n2 1\n3 x\n").unwrap();
    let error = cub200(root).unwrap_err().to_string();
    assert!(error.contains("line 3") && error.contains("found `3 x`"), "{error}");
    fs::write(root.join("image_class_labels.txt"), "1 101\n2 1\n3 1\n").unwrap();
    assert!(cub200(root).unwrap_err().to_string().contains("image 4 has no class"));
}

#[test]
fn products_are_split_by_list() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for name in ["bicycle_final/a.JPG", "bicycle_final/b.JPG", "chair_final/c.JPG"] {
        picture(root, name, 3);
    }
    let header = "image_id class_id super_class_id path\n";
    let train = format!("{header}1 7 1 bicycle_final/a.JPG\n2 7 1 bicycle_final/b.JPG\n");
    fs::write(root.join("Ebay_train.txt"), train).unwrap();
    fs::write(root.join("Ebay_test.txt"), format!("{header}3 9 2 chair_final/c.JPG\n")).unwrap();
    let split = stanford_online_products(root).unwrap();
    assert_eq!((split.train.labels(), split.test.len()), (&[0, 0][..], 1));
    fs::write(root.join("Ebay_test.txt"), format!("{header}3 9 chair_final/c.JPG\n")).unwrap();
    assert!(stanford_online_products(root).unwrap_err().to_string().contains("line 2: expected four fields, found 3"));
    fs::write(root.join("Ebay_test.txt"), "3 9 2 chair_final/c.JPG\n").unwrap();
    assert!(stanford_online_products(root).unwrap_err().to_string().contains("line 1"));
    fs::write(root.join("Ebay_test.txt"), format!("{header}3 9 2 chair_final/gone.JPG\n")).unwrap();
    assert!(stanford_online_products(root).unwrap_err().to_string().contains("gone.JPG"));
}

#[test]
fn in_shop_has_queries_and_a_gallery_of_the_same_items() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for name in ["1", "2", "3", "4"] {
        picture(root, &format!("Img/img/{name}.jpg"), 3);
    }
    fs::create_dir(root.join("Eval")).unwrap();
    let list = |last: &str| {
        format!(
            "4\nimage_name item_id evaluation_status\nimg/1.jpg id_00000001 train\nimg/2.jpg id_00000007 query\n\
             img/3.jpg id_00000005 gallery\nimg/4.jpg id_00000007 {last}\n"
        )
    };
    fs::write(root.join("Eval/list_eval_partition.txt"), list("gallery")).unwrap();
    let parts = in_shop(root).unwrap();
    assert_eq!((parts.train.len(), parts.query_items(), parts.gallery_items()), (1, vec![7], vec![5, 7]));
    fs::write(root.join("Eval/list_eval_partition.txt"), list("test")).unwrap();
    let error = in_shop(root).unwrap_err().to_string();
    assert!(error.contains("line 6") && error.contains("`test`"), "{error}");
    for (from, to, expected) in [
        ("4\nimage", "5\nimage", "line 1: expected 5 images, found 4"),
        ("4\nimage", "four\nimage", "line 1: expected the number of images, found `four`"),
        ("item_id", "item", "line 2: expected `image_name item_id evaluation_status`"),
    ] {
        fs::write(root.join("Eval/list_eval_partition.txt"), list("gallery").replacen(from, to, 1)).unwrap();
        let error = in_shop(root).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn cars_come_from_a_table_or_from_folders() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut table = "relative_im_path,class\n".to_owned();
    for class in 1..=196 {
        picture(root, &format!("images/{class:03}/{class}.png"), 2);
        table += &format!("images/{class:03}/{class}.png,{class}\n");
    }
    let by_folder = cars196(root).unwrap();
    assert_eq!((by_folder.train.classes().len(), by_folder.test.classes()[0].as_str()), (98, "99"));
    fs::write(root.join("cars_annos.csv"), &table).unwrap();
    assert_eq!(cars196(root).unwrap().train.files(), by_folder.train.files());
    // The first image is not to be taken for a header.
    fs::write(root.join("cars_annos.csv"), table.split_once('\n').unwrap().1).unwrap();
    let error = cars196(root).unwrap_err().to_string();
    assert!(error.contains("line 1: expected `relative_im_path,class`, found `images/001/1.png,1`"), "{error}");
    fs::write(root.join("cars_annos.csv"), "relative_im_path,class\nimages/001/1.png,197\n").unwrap();
    assert!(cars196(root).unwrap_err().to_string().contains("line 2"));
    fs::write(root.join("cars_annos.csv"), "relative_im_path,class\nimages/001/1.png,1\n").unwrap();
    assert!(cars196(root).unwrap_err().to_string().contains("expected 196, found 1"));
}

#[test]
fn what_is_missing_is_named_with_the_layout() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere");
    for (error, file) in [
        (cub200(&nowhere).unwrap_err(), "image_class_labels.txt"),
        (stanford_online_products(&nowhere).unwrap_err(), "Ebay_train.txt"),
        (in_shop(&nowhere).unwrap_err(), "list_eval_partition.txt"),
        (cars196(&nowhere).unwrap_err(), "nowhere"),
    ] {
        let text = error.to_string();
        assert!(text.contains(file) && text.contains("expected"), "{text}");
        assert!(matches!(error, Error::DataMissing { .. }));
    }
}

#[test]
fn images_of_many_sizes_make_batches() {
    let folder = tempfile::tempdir().unwrap();
    let files = (0..8).map(|i| {
        let name = format!("{i}.png");
        picture(folder.path(), &name, 5 + i);
        (folder.path().join(name), if i < 4 { "a".to_owned() } else { "b".to_owned() })
    });
    let list = ImageList::new(files.collect(), "eight").unwrap();
    let crop = Transform::ResizedCrop { size: [6, 6], scale: [0.5, 1.0], ratio: [0.75, 1.33] };
    let loader = PkLoader::new(list, &Augmentation::new([crop]), PkSampler::new(2, 2), 0).unwrap();
    let batch = loader.epoch(0).unwrap().next().unwrap().unwrap();
    assert_eq!(batch.input.size(), [4, 3, 6, 6]);
    assert!(matches!(ImageList::new(Vec::new(), "none"), Err(Error::Empty("none"))));
}

#[test]
fn framed_images_are_those_of_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (class, [width, height]) in [("a", [9, 14]), ("b", [23, 11])] {
        fs::create_dir(path(class)).unwrap();
        let ramp = |x: u32, y: u32| image::Rgb([10 * x as u8, 15 * y as u8, (7 * x * y % 251) as u8]);
        image::RgbImage::from_fn(width, height, ramp).save(path(&format!("{class}/1.png"))).unwrap();
    }
    let list = || {
        let files = ["a", "b"].map(|class| (path(&format!("{class}/1.png")), class.to_owned()));
        ImageList::new(files.to_vec(), "two").unwrap()
    };
    let framing = Framing::Centre { shorter: 8, size: [7, 6] };
    let (framed, known) = (list().framed(framing).unwrap(), ImageFolder::open(folder.path(), framing, "two").unwrap());
    assert_eq!((framed.size(), framed.labels()), (Some([7, 6]), &[0, 1][..]));
    for at in 0..2 {
        assert_eq!(framed.image(at).unwrap().pixels, known.image(at).unwrap().pixels);
    }
    let native = list().framed(Framing::Native).unwrap();
    assert_eq!((native.size(), native.image(1).unwrap().shape.size()), (None, [11, 23]));
    assert!(list().framed(Framing::Centre { shorter: 8, size: [9, 8] }).is_err());
    assert!(list().framed(Framing::Same).unwrap_err().to_string().contains("framing"));
}

#[test]
fn sets_in_memory_are_split_by_class() {
    let names = ["a", "b", "c"].map(String::from).to_vec();
    let set = Dataset::new(vec![1, 2, 3, 4], ImageShape::new(1, 1, 1), vec![2, 0, 1, 0], names, "four").unwrap();
    let split = class_split(&set, 1).unwrap();
    assert_eq!((split.train.pixels(), split.test.pixels()), (&[2, 4][..], &[1, 3][..]));
    assert_eq!(split.test.classes(), ["b", "c"]);
    assert!(class_split(&set, 0).is_err() && class_split(&set, 3).is_err());
}
