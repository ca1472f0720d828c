//! Disks: full ones, on a small tmpfs, and ones where a single call fails, the first, the second and so on (F47, F63;
//! `correctness.md` 4.2 T5; I1, I8).
//!
//! Tests with `small_tmpfs` in their names mount one and so need the rights to; `./test.sh` names them where it has none.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use runtime::{
    clock::{self, Mono},
    config,
};
use sim::{chance::Chance, servers};

use crate::whole::{
    cloud::Cloud,
    erp::Erp,
    library::{Library, run, text},
    world::{Plan, World},
};

const PATIENCE: Duration = Duration::from_secs(120);

/// A tmpfs over a folder; what the folder held is copied into it.
pub(crate) struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    pub(crate) fn over(folder: PathBuf, mib: u32) -> Self {
        let aside = folder.with_extension("aside");
        fs::create_dir_all(&folder).unwrap();
        fs::rename(&folder, &aside).unwrap();
        fs::create_dir(&folder).unwrap();
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m,mode=0700"), "tmpfs"])
            .arg(&folder));
        run(Command::new("cp").arg("-a").arg(aside.join(".")).arg(&folder));
        Self { folder }
    }

    fn grows_to(&self, mib: u32) {
        let size = format!("remount,size={mib}m");
        run(Command::new("mount").args(["-o", &size]).arg(&self.folder));
    }

    fn free(&self) -> u64 {
        runtime::files::free(&self.folder).unwrap()
    }

    /// Takes so much of the room that `left` bytes stay. Others write meanwhile: what was free may be taken a moment later,
    /// so it is looked at and tried again.
    fn fills_up_to(&self, left: u64) {
        let fills = || {
            let take = self.free().saturating_sub(left);
            if take == 0 {
                return fs::File::create(self.ballast()).is_ok();
            }
            let mut fill = Command::new("fallocate");
            fill.args(["-l", &take.to_string()]).arg(self.ballast());
            fill.status().unwrap().success()
        };
        assert!((0..20).any(|_| fills()), "the disk cannot be filled");
    }

    fn empties(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the processes that use it end a moment later.
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}

async fn erp(rows: u32, width: u32) -> (String, Erp) {
    let url = servers::shared().await.unwrap();
    let erp = Erp::postgres(&url).await;
    let schema = format!(
        "CREATE TABLE t (id bigint PRIMARY KEY, v text, changed_at timestamptz DEFAULT now());
         CREATE INDEX ON t (changed_at, id);
         INSERT INTO t SELECT g, repeat('x', {width}), now() - interval '1 day' FROM generate_series(1, {rows}) g;
         ANALYZE"
    );
    erp.run(&schema).await.unwrap();
    (url, erp)
}

fn plan(url: &str) -> Plan {
    Plan::new(url, &["t"]).stamp("t", "changed_at")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_on_a_small_tmpfs_fills_it_says_so_and_goes_on_when_there_is_room() {
    let (url, erp) = erp(24_000, 1_000).await;
    let mut cloud = Cloud::start("LOGIX", &["t"]).await;
    cloud.stop().await;
    let disk = SmallDisk::over(cloud.folder.path().join("data"), 20);
    cloud.run().await;
    let mut world = World::over(cloud, plan(&url), erp);

    world.status_says("DISK_FULL", PATIENCE).await;
    // The administrator's eyes and the load balancer's.
    let ready = reqwest::get(format!("{}/readyz", world.cloud.registry_base())).await.unwrap();
    assert_eq!(ready.status(), 507, "not ready, with the code's own status");
    let log = fs::read_to_string(world.cloud.log_file()).unwrap();
    assert!(log.contains("DISK_FULL"), "{log}");
    // It ends in the middle of it and does not find more room when it comes back.
    world.cloud.kill();
    world.cloud.launch();

    disk.grows_to(400);
    world.equal_at_last(PATIENCE).await;
    world.status_lacks("DISK_FULL", PATIENCE).await;
    assert_eq!(world.equal(PATIENCE).await, 24_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_on_a_small_tmpfs_stops_reading_in_time_and_survives_a_full_one() {
    let (url, erp) = erp(2_000, 100).await;
    let cloud = Cloud::start("LOGIX", &["t"]).await;
    let disk = SmallDisk::over(cloud.folder.path().join("agent-data"), 160);
    let mut world = World::over(cloud, plan(&url), erp);
    world.equal(PATIENCE).await;

    // Little is left: it stops reading, says so and writes on what it must.
    disk.fills_up_to(50 * 1024 * 1024);
    world.status_says("DISK_FULL", PATIENCE).await;
    change(&world, 1).await;
    disk.empties();
    world.status_lacks("DISK_FULL", PATIENCE).await;
    world.equal(PATIENCE).await;

    // Nothing is left, from one moment to the next, with changes on their way.
    for round in 2..6 {
        change(&world, round).await;
        disk.fills_up_to(0);
        change(&world, round).await;
        world.status_says("DISK_FULL", PATIENCE).await;
        disk.empties();
        world.equal_at_last(PATIENCE).await;
    }
    world.status_lacks("DISK_FULL", PATIENCE).await;
}

async fn change(world: &World, round: u32) {
    let sql = format!(
        "UPDATE t SET v = 'round {round}', changed_at = now() WHERE id % 7 = {round};
         DELETE FROM t WHERE id = {round}"
    );
    world.erp.run(&sql).await.unwrap();
}

/// The library that lets one call fail.
struct FailingDisk {
    library: Library,
}

impl FailingDisk {
    fn told(&self) -> PathBuf {
        self.library.beside("told")
    }

    /// Environment in which call number `at` on files of that name fails.
    fn variables(&self, file: &str, at: u64, errno: i32) -> Vec<(String, String)> {
        // What an earlier one told.
        let _ = fs::remove_file(self.told());
        let set = |name: &str, value: String| (format!("FAILING_DISK_{name}"), value);
        vec![
            self.library.loaded(),
            set("FILE", file.to_owned()),
            set("AT", at.to_string()),
            set("ERRNO", errno.to_string()),
            set("TOLD", text(&self.told())),
        ]
    }
}

/// Which calls fail: each of the first ones in the full run, else the first and a few by chance.
fn calls(chance: &mut Chance) -> Vec<u64> {
    if config::variable("MALOTE_TEST_FULL").is_some() {
        return (1..=40).collect();
    }
    vec![1, 2 + chance.below(10), 12 + chance.below(28)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_write_to_journal_store_or_staging_may_fail_and_nothing_is_lost() {
    let mut chance = Chance::from_environment();
    println!("MALOTE_SEED={}", chance.seed());
    let disk = FailingDisk { library: Library::built("failing_disk") };
    let (url, erp) = erp(500, 100).await;
    let mut world = World::start(plan(&url), erp).await;
    world.equal(PATIENCE).await;
    let mut round = 10;
    for file in ["journal.sqlite", "store.sqlite", "LOGIX.sqlite"] {
        for at in calls(&mut chance) {
            // EIO or ENOSPC.
            let errno = if chance.percent(50) { 5 } else { 28 };
            println!("call {at} on {file} fails with {errno}");
            let variables = disk.variables(file, at, errno);
            let variables: Vec<_> =
                variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            if file == "journal.sqlite" {
                world.kill_agent();
                world.start_agent_with(&variables);
            } else {
                world.cloud.kill();
                world.cloud.launch_with(&variables);
            }
            failed(&mut world, &disk, &mut round).await;
            world.equal_at_last(PATIENCE).await;
        }
    }
}

/// Changes rows until the call failed.
async fn failed(world: &mut World, disk: &FailingDisk, round: &mut u32) {
    let begun = Mono::now();
    while !disk.told().exists() {
        assert!(begun.elapsed() < PATIENCE, "there are not so many calls\n{}", world.logs());
        *round += 1;
        change(world, *round).await;
        let next = Mono::now();
        while !disk.told().exists() && next.elapsed() < Duration::from_millis(700) {
            clock::sleep(Duration::from_millis(20)).await;
        }
    }
}
