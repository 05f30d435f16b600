//! The order of transactions, and who could have written a journal.

use super::*;
use crate::apply::journal::{Event, FORMAT, Record, line};
use crate::apply::who::Who;

fn store(folder: &tempfile::TempDir) -> Store {
    Store::new(Tree::open(folder.path()).unwrap(), "/var/lib/preflight")
}

/// Begins a transaction of a given name at a given time.
fn begin(store: &Store, id: &str, boot: &str, boottime_us: u64) -> TxId {
    let tx: TxId = id.parse().unwrap();
    let event = Event::Begin {
        format: FORMAT.to_owned(),
        tx: tx.clone(),
        preflight: String::new(),
        profile: String::new(),
        allow: Vec::new(),
        plan_sha256: String::new(),
        who: Who { uid: 0, sudo_user: None, ssh: None },
        steps: Vec::new(),
    };
    let record = Record { seq: 0, at: String::new(), boot_id: boot.to_owned(), boottime_us, event };
    store.create(&tx, 4096).unwrap().append(&line(&record).unwrap()).unwrap();
    tx
}

/// Seen failing with the names alone deciding: of one second, the word in them; and after the calendar was set back, the
/// second.
#[test]
fn what_is_open_is_told_in_the_order_in_which_it_began() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder);
    let began = [
        begin(&store, "20260101T000500Z-eeeeeeee", "one", 10),
        // Set back by NTP.
        begin(&store, "20260101T000000Z-ffffffff", "one", 20),
        begin(&store, "20260101T000000Z-00000000", "one", 30),
        begin(&store, "20260101T000700Z-55555555", "two", 5),
        begin(&store, "20260101T000700Z-11111111", "two", 6),
    ];
    assert_eq!(store.unfinished().unwrap(), began);
    // One that cannot be read keeps the place that its name gives it, and hides none.
    let damaged = begin(&store, "20260101T000900Z-22222222", "two", 7);
    folder_write(&folder, &damaged, "{}\n{}\n");
    assert_eq!(store.unfinished().unwrap().len(), 6);
    assert_eq!(store.unfinished().unwrap().last(), Some(&damaged));
}

#[expect(clippy::disallowed_methods, reason = "the test damages what it made")]
fn folder_write(folder: &tempfile::TempDir, tx: &TxId, text: &str) {
    let path = folder.path().join("var/lib/preflight/tx").join(tx.as_str()).join("journal.jsonl");
    std::fs::write(path, text).unwrap();
}
