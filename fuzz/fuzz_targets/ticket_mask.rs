//! Structured tickets in files (`header ff data`). What is read is written and read again.
#![no_main]

use fuzz::{Folder, safetensors};
use libfuzzer_sys::fuzz_target;
use lth::structured::TicketMask;

fuzz_target!(|bytes: &[u8]| {
    let folder = Folder::new();
    let path = folder.put("ticket.safetensors", safetensors(bytes));
    if let Ok(ticket) = TicketMask::load(&path) {
        ticket.save(&path).expect("a ticket that was read");
        assert_eq!(TicketMask::load(&path).expect("what was written"), ticket);
    }
});
