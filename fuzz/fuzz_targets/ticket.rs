//! Tickets in files (`header ff data`). What is read is written and read again.
#![no_main]

use fuzz::{Folder, safetensors};
use libfuzzer_sys::fuzz_target;
use lth::Ticket;

fuzz_target!(|bytes: &[u8]| {
    let folder = Folder::new();
    let path = folder.put("ticket.safetensors", safetensors(bytes));
    if let Ok(ticket) = Ticket::load(&path) {
        ticket.save(&path).expect("a ticket that was read");
        let again = Ticket::load(&path).expect("what was written");
        assert_eq!((again.mask(), again.record()), (ticket.mask(), ticket.record()));
        let _ = ticket.materialise();
    }
});
