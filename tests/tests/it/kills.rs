//! From the moment a script ends its result is never lost and never doubled: every program is killed at every border between
//! two of its steps, and the services under it are restarted in the middle.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::process::ExitStatusExt,
    time::Duration,
};

use longshore_tests::{Cluster, ClusterOptions, Elasticsearch, Program, SERVER_ID, wait_until_blocking};

use crate::evidence::{Ledger, Maker, Places, names_in};

const SECTIONS: usize = 10;
const NODES: usize = 2;
const SOON: Duration = Duration::from_secs(60);
const KILL: i32 = 9;

/// Borders inside a run of the agent, in their order. The borders of mailbox and `sent/` need reports of an earlier run.
const AGENT_STEPS: &[&str] = &[
    "agent.locked",
    "agent.intent",
    "agent.script_started",
    "agent.script_ended",
    "agent.examined",
    "agent.full_noted",
    "agent.chained",
    "agent.spooled",
    "agent.intent_removed",
    "agent.offered",
    "agent.sent",
    "agent.mailbox_read",
    "agent.sent_cleaned",
    "agent.acknowledged",
    "agent.beat",
];
const PULLER_STEPS: &[&str] = &[
    "puller.claimed",
    "puller.fetching",
    "puller.fetched",
    "puller.verified",
    "puller.committed",
    "puller.published",
    "puller.settled",
];
const INDEXER_STEPS: &[&str] = &["indexer.read", "indexer.written", "indexer.freshness", "indexer.acknowledged"];

/// Every step that the programs have is in a list above: a new one can't be forgotten.
#[test]
fn the_kill_tests_know_every_step() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = BTreeSet::new();
    for program in ["agent", "puller", "indexer"] {
        let mut folders = vec![root.join(program).join("src")];
        while let Some(folder) = folders.pop() {
            for path in names_in(&folder).into_iter().map(|name| folder.join(name)) {
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                let names =
                    text.split("step::reached(\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
                found.extend(names);
            }
        }
    }
    // The wrapper's borders are inside the agent's own tests: a script whose wrapper dies has not ended for us yet. A report is
    // set aside only when a catalog refuses it: the indexer's own tests make one do so. A second copy is made only where it is
    // asked for, and a file moved out of a batch only where jobs wait together: the puller's own tests kill there.
    let elsewhere = ["indexer.set_aside", "puller.copying", "puller.moved"];
    found.retain(|name| !name.starts_with("wrapper.") && !elsewhere.contains(&name.as_str()));
    let known = [AGENT_STEPS, PULLER_STEPS, INDEXER_STEPS].concat().into_iter().map(str::to_owned).collect();
    assert_eq!(found, known);
}

/// A cluster with makers, and what to do to it.
struct Trial {
    cluster: Cluster,
    maker: Maker,
    ledger: Ledger,
}

impl Trial {
    /// Runs the agent as cron would.
    fn run_agent(&self) {
        self.run_agent_that_may_end_with(&[0, 75]);
    }

    fn run_agent_that_may_end_with(&self, codes: &[i32]) {
        let output = self.cluster.agent(&["run"]);
        let is_fine = output.status.code().is_some_and(|code| codes.contains(&code));
        assert!(is_fine, "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }

    /// A run of the agent whose jobs no node takes before it has ended: whatever comes of them is news to the next run.
    fn run_agent_ahead_of_the_nodes(&self, codes: &[i32]) {
        self.nodes().for_each(Program::pause);
        self.run_agent_that_may_end_with(codes);
        self.nodes().for_each(Program::resume);
    }

    fn kill_agent_at(&self, step: &str) {
        // Steps with the mailbox are there only for a run that finds in it what it waits for: an agent killed before it
        // acknowledged leaves entries that no run looks for any more.
        let mut redis = self.cluster.redis.connection();
        let key = format!("longshore:mailbox:{SERVER_ID}");
        let mut reports = BTreeMap::<String, String>::new();
        wait_until_blocking("the host's mailbox has a report that its agent waits for", SOON, || {
            let sent = names_in(&self.cluster.host_dir().join("state/sent"));
            reports = redis::cmd("HGETALL").arg(&key).query(&mut redis).unwrap();
            reports.keys().any(|id| sent.contains(&format!("{id}.json")))
        });
        // A young one is left for a later run: these are made old.
        for (id, end) in reports {
            let (report, written) = end.rsplit_once(' ').unwrap();
            let old = format!("{report} {}", written.parse::<u64>().unwrap() - 11_000_000);
            redis::cmd("HSET").arg(&key).arg(id).arg(old).exec(&mut redis).unwrap();
        }
        let output = self.cluster.agent_with(&["run"], &[("LONGSHORE_STOP_AT", step)]);
        assert_eq!(output.status.signal(), Some(KILL), "{step}: {}", String::from_utf8_lossy(&output.stderr));
        // A script that an intent announces and nobody started is reported as a failure: its end is not known.
        self.run_agent_ahead_of_the_nodes(&[0, 1, 75]);
    }

    fn nodes(&self) -> impl Iterator<Item = &Program> {
        (0..NODES).map(|index| self.cluster.node(index))
    }

    /// `program` is started so that it dies at `step`, work is given to it, and it is started again as its supervisor would.
    fn kill_at(&self, program: &Program, step: &str) {
        program.stop();
        program.start_with(&[("LONGSHORE_STOP_AT", step)]);
        self.run_agent();
        let status = program.wait_for_end(SOON);
        assert_eq!(status.signal(), Some(KILL), "{step}: {}", program.log());
        program.start();
    }
}

#[test]
fn three_hundred_backups_survive_a_kill_at_every_step_and_a_restart_of_redis() {
    let cluster = Cluster::start(ClusterOptions { nodes: NODES, ..ClusterOptions::default() });
    let trial = Trial { maker: Maker::install(&cluster, SECTIONS), ledger: Ledger::sqlite(&cluster), cluster };
    let cluster = &trial.cluster;
    trial.run_agent_ahead_of_the_nodes(&[0]);
    for step in AGENT_STEPS {
        trial.kill_agent_at(step);
    }
    for step in PULLER_STEPS {
        // The other node must not take all the work before this one dies.
        cluster.node(1).stop();
        trial.kill_at(cluster.node(0), step);
        cluster.node(1).start();
    }
    for step in INDEXER_STEPS {
        trial.kill_at(cluster.indexer(), step);
    }
    trial.run_agent();
    cluster.redis.stop();
    trial.run_agent();
    cluster.redis.start_again();
    while trial.maker.names().len() < 300 {
        trial.run_agent();
    }
    trial.run_agent();
    trial.maker.assert_each_once(cluster, NODES, &trial.ledger, Places::One);
    assert_nothing_left(cluster, NODES);
}

#[test]
fn redis_killed_in_the_middle_loses_nothing() {
    let cluster = Cluster::start(ClusterOptions { nodes: NODES, ..ClusterOptions::default() });
    let trial = Trial { maker: Maker::install(&cluster, SECTIONS), ledger: Ledger::sqlite(&cluster), cluster };
    for _ in 0..3 {
        trial.run_agent();
        trial.cluster.redis.kill();
        trial.run_agent();
        trial.cluster.redis.start_again();
        trial.run_agent();
    }
    trial.maker.assert_each_once(&trial.cluster, NODES, &trial.ledger, Places::Several);
}

#[test]
fn elasticsearch_restarted_and_the_indexer_killed_in_the_middle_lose_nothing() {
    let elasticsearch = Elasticsearch::start();
    let place = (elasticsearch.url(), "kills".to_owned());
    let cluster = Cluster::start(ClusterOptions { elasticsearch: Some(place), ..ClusterOptions::default() });
    let ledger = Ledger::elasticsearch(&elasticsearch.url(), "kills");
    let trial = Trial { maker: Maker::install(&cluster, SECTIONS), ledger, cluster };
    for step in INDEXER_STEPS {
        trial.kill_at(trial.cluster.indexer(), step);
    }
    elasticsearch.stop();
    for _ in 0..5 {
        trial.run_agent();
    }
    elasticsearch.start_again();
    trial.run_agent();
    trial.maker.assert_each_once(&trial.cluster, 1, &trial.ledger, Places::One);
}

/// No half transfers on the nodes, nothing waiting, nothing under lease.
fn assert_nothing_left(cluster: &Cluster, nodes: usize) {
    for node in 0..nodes {
        // A transfer's folder goes after its report is written.
        wait_until_blocking(&format!("no half transfer is left on node {node}"), SOON, || {
            names_in(&cluster.store(node).join(".incoming")).is_empty()
        });
    }
    let mut redis = cluster.redis.connection();
    for key in ["level1", "longshore:leases", "longshore:timers", "longshore:dead"] {
        let kind: String = redis::cmd("TYPE").arg(key).query(&mut redis).unwrap();
        assert_eq!(kind, "none", "{key} still has something");
    }
    wait_until_blocking("the report stream is empty", SOON, || {
        redis::cmd("XLEN").arg("longshore:reports").query::<u64>(&mut redis).unwrap() == 0
    });
}
