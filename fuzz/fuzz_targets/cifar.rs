//! CIFAR's binary files. The records that are read are those of the file, byte by byte.
#![no_main]

use core_tensor::data::{read_cifar10, read_cifar100};
use fuzz::Folder;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = Folder::new();
    let path = folder.put("data.bin", bytes);
    for (labels, read) in [(1, read_cifar10(&path)), (2, read_cifar100(&path))] {
        let Ok(set) = read else { continue };
        let records = bytes.chunks(labels + 3072);
        assert_eq!(set.targets().len(), records.len());
        for ((record, &label), pixels) in records.zip(set.targets()).zip(set.pixels().chunks(3072)) {
            assert_eq!((i64::from(record[labels - 1]), &record[labels..]), (label, pixels));
        }
    }
});
