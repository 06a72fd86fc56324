//! Chaos: jobs made by real agents go through three nodes into a catalog while everything that can be killed, frozen, cut,
//! filled or set wrong is. In the end each is there once and whole, and nothing is left over.
//!
//! `LONGSHORE_CHAOS_JOBS` and `LONGSHORE_CHAOS_SEED` (`./tests/chaos --jobs N --seed S`) say how many, and which plan of faults.

mod host;
mod node;
mod plan;
mod site;
mod verdict;
mod witness;

use std::{
    thread,
    time::{Duration, Instant},
};

use self::{
    plan::{HOSTS, plan},
    site::Site,
};
use crate::evidence::Ledger;

/// The short form.
const JOBS: u64 = 1000;
/// It takes less than this, from the first service's start to the verdict.
const SHORT_FORM: Duration = Duration::from_secs(180);
/// Longer than the longest fault, what it leaves behind, and a machine with other things to do.
const STANDS_STILL: Duration = Duration::from_secs(240);

#[test]
fn every_backup_arrives_once_and_whole_through_chaos() {
    let asked = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let jobs = asked("LONGSHORE_CHAOS_JOBS").unwrap_or(JOBS);
    let seed = asked("LONGSHORE_CHAOS_SEED").unwrap_or_else(|| u64::from(uuid::Uuid::now_v7().as_u128() as u32));
    println!("again with: ./tests/chaos --jobs {jobs} --seed {seed}");
    let plan = plan(seed, jobs);
    let started = Instant::now();
    let site = Site::start(jobs);
    let ledger = Ledger::at(&site.catalog());
    thread::scope(|scope| {
        // Also when something below panics: the scope waits for its threads.
        let over = Over(&site);
        scope.spawn(|| site.watch_reserves());
        scope.spawn(|| site.watch_reports());
        for host in &site.hosts {
            let site = &site;
            scope.spawn(move || host.live(jobs / HOSTS as u64, &|| site.is_over()));
        }
        let mut faults = Vec::new();
        for planned in &plan {
            wait_for_progress(&site, &ledger, planned.progress);
            println!("{:6.1} s {planned}", started.elapsed().as_secs_f64());
            let site = &site;
            faults.push(scope.spawn(move || site.suffer(planned)));
        }
        for fault in faults {
            fault.join().expect("a fault came to its end");
        }
        wait_for_progress(&site, &ledger, 2 * jobs);
        println!("{:6.1} s all is made and stored", started.elapsed().as_secs_f64());
        verdict::judge(&site, &ledger);
        drop(over);
    });
    let took = started.elapsed();
    println!("{:6.1} s over", took.as_secs_f64());
    assert!(jobs > JOBS || took < SHORT_FORM, "{jobs} jobs took {took:?}, and are to take less than {SHORT_FORM:?}");
}

/// Waits until so many jobs were made, plus so many stored.
fn wait_for_progress(site: &Site, ledger: &Ledger, wanted: u64) {
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        let made: usize = site.hosts.iter().map(|host| host.made().len()).sum();
        let progress = made as u64 + ledger.stored_count();
        if progress >= wanted {
            return;
        }
        if progress > last {
            (last, moved) = (progress, Instant::now());
        }
        assert!(moved.elapsed() < STANDS_STILL, "nothing moves: {made} made, progress {progress} of {wanted}");
        thread::park_timeout(Duration::from_millis(50));
    }
}

/// Ends what runs as long as the site does.
struct Over<'a>(&'a Site);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
