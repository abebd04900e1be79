//! The disk that loses power: redb keeps what was committed, and the machine is down.

use redb::{Database, ReadableDatabase as _, StorageBackend, TableDefinition};
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tradewind_agent::env::{Seed, Storage as _};
use tradewind_sim::disk::SimDisk;
use tradewind_sim::entropy::on_fresh_thread;
use tradewind_sim::net::PathQuality;
use tradewind_sim::world::{Program, World};

const TABLE: TableDefinition<u64, u64> = TableDefinition::new("t");

/// Values that one transaction writes together.
const KEYS: u64 = 20;

/// redb implements its trait for no box.
#[derive(Debug)]
struct Boxed(Box<dyn StorageBackend>);

impl StorageBackend for Boxed {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(at, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn write(&self, at: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(at, data)
    }
    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}

/// What a commit was answered with.
fn commit(database: &Database, value: u64) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(TABLE)?;
        for key in 0..KEYS {
            table.insert(key, value)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// The one value that all keys have, or 0 before the first commit.
fn value(database: &Database) -> u64 {
    let Ok(table) = database.begin_read().unwrap().open_table(TABLE) else { return 0 };
    let value = |key| table.get(key).unwrap().map(|guard| guard.value()).unwrap_or(0);
    let first = value(0);
    assert!((1..KEYS).all(|key| value(key) == first), "a transaction survived in part");
    first
}

#[test]
fn no_power_cut_undoes_a_commit_or_leaves_half_of_one() {
    let (mut cuts, mut torn) = (0, 0);
    for seed in 0..8 {
        let disk = SimDisk::new(Seed::new([seed; 32]));
        // redb's creation of a file is not atomic: cut within it, the file is no database, and holds nothing.
        drop(Database::builder().create_with_backend(Boxed(disk.open("db").unwrap())).unwrap());
        let (mut acknowledged, mut attempted) = (0, 0);
        for round in 0..40 {
            disk.cut_after((round * 7 + u64::from(seed)) % 41);
            // The power may go while the database is opened and recovers, too.
            if let Ok(database) = Database::builder().create_with_backend(Boxed(disk.open("db").unwrap())) {
                let recovered = value(&database);
                assert!((acknowledged..=attempted).contains(&recovered), "{recovered} is not in {acknowledged}..={attempted}");
                attempted = recovered;
                loop {
                    attempted += 1;
                    if commit(&database, attempted).is_err() {
                        break;
                    }
                    acknowledged = attempted;
                }
            }
        }
        assert!(acknowledged > 10, "commits happen: {acknowledged}");
        cuts += disk.stats().cuts;
        torn += disk.stats().sectors_lost;
    }
    assert!(cuts >= 300 && torn > 1_000, "the test cuts ({cuts}) and loses ({torn})");
}

#[test]
fn a_machine_whose_power_fails_in_a_write_is_down_until_it_is_restarted() {
    on_fresh_thread(1, || {
        let mut world = World::new(1, PathQuality::default());
        let program: Program = Rc::new(|env| {
            Box::pin(async move {
                let file = env.storage.open("f")?;
                loop {
                    file.write(0, b"x")?;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
        });
        let machine = world.add_machine("a", program);
        machine.disk.cut_after(20);
        let mut lost = vec![];
        while world.elapsed() < Duration::from_secs(1) {
            lost.extend(world.step().unwrap().into_iter().map(|name| (name, world.elapsed())));
        }
        let [(name, at)] = &lost[..] else { panic!("{lost:?}") };
        assert_eq!(name, "a");
        assert!((200..=220).contains(&at.as_millis()), "{at:?}");
        assert!(!world.is_up("a") && machine.boots() == 1);
        let before = machine.disk.stats().mutations;
        world.restart("a").unwrap();
        world.step().unwrap();
        assert!(world.is_up("a") && machine.boots() == 2 && machine.disk.stats().mutations > before, "it runs, and its file opens again");
    })
    .unwrap();
}
