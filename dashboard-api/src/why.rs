//! Why a job is where it is, in words: one sentence first, then the facts that it rests on. All of it comes from what the queue and
//! the nodes recorded when they decided; nothing is guessed anew.

use std::time::Duration;

use longshore_core::{
    JobId, Millis, NodeBeat,
    queue::{HostStanding, JobRecord, JobStanding, JobState, NodeStanding},
    text::{count, from, size, span},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::backups::BackupView;

/// A node that has a free slot asks several times in so long.
const ASKS_WITHIN: Duration = Duration::from_secs(10);

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Fact {
    /// What it is about, in a word or two.
    pub name: &'static str,
    /// For people.
    pub text: String,
    /// The moment that it is about, UTC milliseconds.
    #[schema(value_type = Option<i64>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Millis>,
}

/// Why one node does not have a job that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct NodeWhy {
    /// The node.
    pub node_id: String,
    /// For programs: `silent` (or stopped), `drains`, `window`, `paused`, `level`, `slots`, `too_large`, `no_room`, `reserved`,
    /// `kept_for_it`, `yields` or `asks`.
    pub code: &'static str,
    /// For people.
    pub text: String,
}

/// Why a job is where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct JobWhy {
    /// The job.
    #[schema(value_type = String)]
    pub job: JobId,
    /// Its instance, as `SERVER/TYPE/INSTANCE`, when it is known.
    pub instance: Option<String>,
    /// `inbox`, `ready`, `delayed`, `held`, `leased` or `dead`; once it is over `stored`, `failed`, `refused` or `cancelled`.
    pub state: String,
    /// The sentence.
    pub answer: String,
    /// What it rests on.
    pub facts: Vec<Fact>,
    /// Of a job that waits: why each node does not have it.
    pub nodes: Vec<NodeWhy>,
}

/// What is known of a job, beside what the queue says.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Its instance.
    pub instance: Option<&'a str>,
    /// Its end, as the catalog has it.
    pub backup: Option<&'a BackupView>,
    /// A node that was not heard of for so long is silent.
    pub silent_after: Duration,
    /// Whether its level is urgent: jobs of such a level are fetched although their host is closed.
    pub urgent: bool,
}

/// Who has what is to be fetched, by the name that the queue keeps it under: a host, or the node that a second copy is made from.
pub fn source_name(host: &str) -> String {
    source_node(host).map_or_else(|| format!("host {host}"), |node| format!("node {node}"))
}

/// The node that second copies are made from, if that is meant.
pub fn source_node(host: &str) -> Option<&str> {
    host.strip_prefix('@')
}

/// The explanation; `None` for a job of which nothing is known.
pub fn explain(job: JobId, standing: &JobStanding, known: Known<'_>) -> Option<JobWhy> {
    let mut why = JobWhy {
        job,
        instance: known.instance.map(str::to_owned),
        state: String::new(),
        answer: String::new(),
        facts: Vec::new(),
        nodes: Vec::new(),
    };
    match &standing.record {
        Some(record) => why.in_queue(standing, record, known),
        None => why.elsewhere(standing, known)?,
    }
    Some(why)
}

impl JobWhy {
    fn fact(&mut self, name: &'static str, text: impl Into<String>) {
        self.facts.push(Fact { name, text: text.into(), at: None });
    }

    fn moment(&mut self, name: &'static str, at: Millis, now: Millis) {
        self.facts.push(Fact { name, text: from(at, now), at: Some(at) });
    }

    /// Not in the index: in an inbox, or over.
    fn elsewhere(&mut self, standing: &JobStanding, known: Known<'_>) -> Option<()> {
        if let Some(queue) = &standing.inbox {
            "inbox".clone_into(&mut self.state);
            let alive = standing.nodes.iter().any(|node| is_there(node, standing.now, known.silent_after));
            let who = if alive { "no node has taken it out yet" } else { "no node is alive to take it out" };
            self.answer = format!("It is in the inbox of {queue}: {who}.");
            return Some(());
        }
        if let Some(backup) = known.backup {
            self.over(backup, standing.now);
            return Some(());
        }
        let ended = standing.ended?;
        ended.outcome.as_str().clone_into(&mut self.state);
        self.answer = format!("It ended as {}; its report is on the way into the catalog.", self.state);
        Some(())
    }

    fn over(&mut self, backup: &BackupView, now: Millis) {
        backup.outcome.as_str().clone_into(&mut self.state);
        let when = from(backup.stored_at, now);
        let node = backup.node_id.as_ref().map_or_else(String::new, |node| format!(" on node {node}"));
        let reason = backup.reason.as_deref().unwrap_or("no reason was given");
        self.answer = match self.state.as_str() {
            "stored" => format!("It was stored{node} {when}."),
            "cancelled" => format!("It was taken out of the queue {when}: {reason}."),
            state => {
                format!("It {}{node} {when}: {reason}.", if state == "refused" { "was refused" } else { "failed" })
            }
        };
        self.moment("ended", backup.stored_at, now);
        self.moment("made", backup.made_at, now);
        if backup.size_bytes > 0 {
            self.fact("size", size(backup.size_bytes));
        }
        self.facts.extend(backup.path.clone().map(|text| Fact { name: "path", text, at: None }));
        for copy in &backup.copies {
            self.fact("copy", format!("on node {}", copy.node_id));
        }
        self.fact("tries", backup.attempts.to_string());
    }

    fn in_queue(&mut self, standing: &JobStanding, record: &JobRecord, known: Known<'_>) {
        let (now, silent_after) = (standing.now, known.silent_after);
        record.state.as_str().clone_into(&mut self.state);
        let it = if record.is_copy { "Its second copy" } else { "It" };
        let reason = record.reason.as_ref().map_or_else(|| "no reason is recorded".to_owned(), ToString::to_string);
        self.answer = match record.state {
            JobState::Ready => {
                self.nodes =
                    standing.nodes.iter().map(|node| judge(node, self.job, record, now, silent_after)).collect();
                self.nodes.sort_by(|a, b| a.node_id.cmp(&b.node_id));
                format!("{it} waits: {}.", waits_for(self.job, standing, record, known.urgent, &self.nodes))
            }
            JobState::Delayed => {
                let when = record.retry_at.map_or_else(|| "soon".to_owned(), |at| from(at, now));
                format!("{it} is tried again {when}; it was tried {}: {reason}.", count(record.attempts.into(), "time"))
            }
            JobState::Held => held(it, record, now),
            JobState::Leased => leased(self.job, it, standing, record, silent_after),
            JobState::Dead => format!(
                "{it} was given up after {}: {reason}.",
                count(record.attempts.into(), "try").replace("trys", "tries")
            ),
        };
        self.fact("level", record.queue.to_string());
        self.moment("waits since", record.admitted_at, now);
        if let Some(due) = record.due_at.filter(|_| record.state == JobState::Ready) {
            let name = if due <= now { "overdue since" } else { "lifted" };
            self.moment(name, due, now);
        }
        self.fact("size", size(record.size_bytes));
        if record.attempts > 0 {
            self.fact("tries", record.attempts.to_string());
        }
        if let Some(reason) =
            record.reason.as_ref().filter(|_| !matches!(record.state, JobState::Dead | JobState::Delayed))
        {
            self.fact("last failure", reason.to_string());
        }
        self.host_facts(&standing.host, record, known.urgent, now);
        for (job, node) in &standing.fetched {
            self.fact("fetched now", format!("{job} by node {node}, from {}", source_name(&record.host)));
        }
    }

    fn host_facts(&mut self, host: &HostStanding, record: &JobRecord, urgent: bool, now: Millis) {
        let HostStanding { active, module_active, .. } = host;
        let (active, module) = (count((*active).into(), "transfer"), &record.module);
        let text = match source_node(&record.host) {
            Some(node) => format!("node {node}, which has the first copy: {active}"),
            None => format!("{}: {active}, {module_active} of module {module}", record.host),
        };
        self.fact("host", text);
        if let (Some(since), true) = (host.failing_since, host.failures > 0) {
            let why = host.reason.as_ref().map(ToString::to_string).unwrap_or_default();
            let text =
                format!("{} in a row for {}: {why}", count(host.failures.into(), "failure"), span(now.since(since)));
            self.facts.push(Fact { name: "host fails", text, at: Some(since) });
        }
        if let Some(until) = host.closed_until.filter(|until| *until > now) {
            let but = if urgent { ", but not to its level, which is urgent" } else { "" };
            let text = format!("{}: {}{but}", opens(until, now), host.closed_why);
            self.facts.push(Fact { name: "host closed", text, at: Some(until) });
        }
    }
}

fn held(it: &str, record: &JobRecord, now: Millis) -> String {
    let Some((at, by, why)) = &record.held else { return format!("{it} is held.") };
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    format!("{it} is held by {by} for {}{why}.", span(now.since(*at)))
}

fn leased(job: JobId, it: &str, standing: &JobStanding, record: &JobRecord, silent_after: Duration) -> String {
    let now = standing.now;
    let name = record.node_id.as_ref().map(ToString::to_string).unwrap_or_default();
    let since = record.claimed_at.map_or_else(String::new, |at| format!(" for {}", span(now.since(at))));
    let ends = record.expires_at.map_or_else(String::new, |at| format!("; its lease ends {}", from(at, now)));
    let Some(node) = standing.nodes.iter().find(|node| node.node_id == name) else {
        return format!("Node {name} has had it{since}, but was never heard of{ends}.");
    };
    if !is_there(node, now, silent_after) {
        let gone = gone(node, now);
        return format!("Node {name} has had it{since}, but {gone}{ends}; then another node gets it.");
    }
    let transfer = node.beat.as_ref().and_then(|beat| beat.running.iter().find(|transfer| transfer.job == job));
    match transfer {
        Some(transfer) => {
            let (bytes, all, speed) =
                (size(transfer.bytes), size(transfer.size_bytes), size(transfer.bytes_per_second));
            format!("{it} is being fetched by node {name}{since}: {bytes} of {all}, {speed}/s.")
        }
        None => format!("Node {name} has had it{since} and does not tell of a transfer yet{ends}."),
    }
}

fn has_stopped(node: &NodeStanding) -> bool {
    node.beat.as_ref().is_some_and(NodeBeat::has_stopped)
}

/// Whether it was heard of lately, and not that it stopped.
fn is_there(node: &NodeStanding, now: Millis, silent_after: Duration) -> bool {
    now.since(node.heard_at) <= silent_after && !has_stopped(node)
}

/// What is known of one that is not there.
fn gone(node: &NodeStanding, now: Millis) -> String {
    let how = if has_stopped(node) { "stopped" } else { "was last heard of" };
    format!("{how} {}", from(node.heard_at, now))
}

/// What keeps a ready job from being taken, the nearest cause first: its host, then the nodes, then its turn.
fn waits_for(job: JobId, standing: &JobStanding, record: &JobRecord, urgent: bool, nodes: &[NodeWhy]) -> String {
    let (now, host, source) = (standing.now, &standing.host, source_name(&record.host));
    if let Some(until) = host.closed_until.filter(|until| *until > now && !urgent) {
        return format!("{source} is closed, and {}: {}", opens(until, now), host.closed_why);
    }
    if let Some(until) = host.rests_until.filter(|until| *until > now) {
        let why = host.reason.as_ref().map(ToString::to_string).unwrap_or_default();
        let failed = count(host.failures.into(), "time");
        return format!("{source} failed {failed} in a row and is asked again {}: {why}", from(until, now));
    }
    if let Some(reason) = node_cause(job, standing, record, nodes) {
        return reason;
    }
    let limited = |active: u32, limit: Option<u32>| limit.is_some_and(|limit| active >= limit);
    let told = standing.nodes.iter().any(|node| node.said == "hosts" && asks(node, now));
    let at_limit = limited(host.active, host.transfers) || limited(host.module_active, host.module_transfers);
    if host.active > 0 && (at_limit || told || host.failures > 0) {
        let transfers = count(host.active.into(), "transfer");
        return format!("{source} has {transfers} under way and may have no more at once");
    }
    if let Some(until) = host.next_start.filter(|until| until.since(now) >= Duration::from_secs(1)) {
        return format!("{source} is not asked more often than it may be: next {}", from(until, now));
    }
    match record.before {
        Some(before) if before > 0 => {
            format!("{} of {} will have waited long enough before it", count(before, "job"), record.queue)
        }
        _ if nodes.iter().all(|node| !matches!(node.code, "asks" | "kept_for_it")) => {
            "every node that could take it is busy, or lets one behind its share go first".to_owned()
        }
        _ => format!("it is next in {}", record.queue),
    }
}

/// A window that never opens is closed until a time beyond all reason.
fn opens(until: Millis, now: Millis) -> String {
    const NEVER: Duration = Duration::from_secs(50 * 365 * 86400);
    if until.since(now) > NEVER { "never opens".to_owned() } else { format!("opens {}", from(until, now)) }
}

fn asks(node: &NodeStanding, now: Millis) -> bool {
    node.asked_at.is_some_and(|at| now.since(at) < ASKS_WITHIN)
}

/// Why no node could take it, if that is so.
fn node_cause(job: JobId, standing: &JobStanding, record: &JobRecord, nodes: &[NodeWhy]) -> Option<String> {
    if nodes.is_empty() {
        return Some(
            "no node was ever heard of in this cluster; start longshore-puller on a storage machine".to_owned(),
        );
    }
    if let Some(node) = standing.nodes.iter().find(|node| node.reserved == Some(job)) {
        let until = node.reserved_until.filter(|until| *until > standing.now);
        if let Some(until) = until {
            let (node, until) = (&node.node_id, from(until, standing.now));
            return Some(
                format!("node {node} keeps its room for it, which is to be enough by {until}").replace("by in ", "in "),
            );
        }
    }
    let living: Vec<&NodeWhy> = nodes.iter().filter(|node| node.code != "silent").collect();
    let Some(first) = living.first() else {
        return Some("every node is silent or has stopped".to_owned());
    };
    let all = |codes: &[&str]| living.iter().all(|node| codes.contains(&node.code));
    if all(&["window"]) {
        return Some(format!("{} is closed on every node: {}", record.queue, first.text));
    }
    if all(&["paused"]) {
        return Some(format!("every node is paused; node {}: {}", first.node_id, first.text));
    }
    if all(&["window", "paused", "level", "drains", "too_large"]) {
        let causes: Vec<String> = living.iter().map(|node| format!("node {}: {}", node.node_id, node.text)).collect();
        let causes = causes.join("; ");
        if all(&["window", "paused", "level", "drains"]) {
            return Some(format!("no node asks for {} now; {causes}", record.queue));
        }
        return Some(match largest_disk(standing, &living) {
            Some(most) if most < record.need_bytes => {
                let (need, most) = (size(record.need_bytes), size(most));
                format!("no disk could ever hold it: it needs {need}, and the largest without its reserve has {most}")
            }
            _ => format!("no node that could hold it asks for {} now; {causes}", record.queue),
        });
    }
    if all(&["window", "paused", "level", "drains", "too_large", "no_room", "reserved"]) {
        return Some(no_room(standing, record, nodes));
    }
    None
}

/// The most that one of these nodes could ever have room for; `None` while one of them has not said it.
fn largest_disk(standing: &JobStanding, living: &[&NodeWhy]) -> Option<u64> {
    let mut nodes = standing.nodes.iter().filter(|node| living.iter().any(|why| why.node_id == node.node_id));
    nodes.try_fold(0, |most, node| node.asked_at.map(|_| node.ceiling_bytes.max(most)))
}

/// Nodes may be short of different things: of each the node is named that comes nearest.
fn no_room(standing: &JobStanding, record: &JobRecord, nodes: &[NodeWhy]) -> String {
    let full = || {
        let is_full =
            |node: &&NodeStanding| nodes.iter().any(|why| why.node_id == node.node_id && why.code == "no_room");
        standing.nodes.iter().filter(is_full)
    };
    let room = |node: &NodeStanding| room_bytes(node, standing.now);
    let lacks_bytes = |node: &&NodeStanding| room(node) < record.need_bytes;
    let bytes = full().filter(lacks_bytes).max_by_key(|node| room(node));
    let inodes = full().filter(|node| !lacks_bytes(node)).max_by_key(|node| node.room_inodes);
    let bytes = bytes.map(|node| {
        let (need, room) = (record.need_bytes, room(node));
        let [need, room, missing] = [need, room, need.saturating_sub(room)].map(size);
        format!("it needs {need}, and the most, on node {}, is {room}, which is {missing} too little", node.node_id)
    });
    let inodes = inodes.map(|node| {
        let (need, room) = (count(record.need_inodes, "inode"), node.room_inodes);
        if bytes.is_some() {
            format!("node {} has the bytes, but {room} of the {need}", node.node_id)
        } else {
            format!("it needs {need}, and the most, on node {}, is {room}", node.node_id)
        }
    });
    let kept = nodes.iter().find(|why| why.code == "reserved").map(|why| format!("node {} {}", why.node_id, why.text));
    let causes: Vec<String> = [bytes, inodes, kept].into_iter().flatten().collect();
    format!("no node has room for it: {}", causes.join("; "))
}

/// The room that it has: as it last asked, or, when all its slots are busy, as its beat says.
fn room_bytes(node: &NodeStanding, now: Millis) -> u64 {
    let of_beat = node.beat.as_ref().map(|beat| beat.room_bytes).filter(|room| *room > 0 && !asks(node, now));
    of_beat.unwrap_or(node.room_bytes)
}

/// Why one node does not have it.
fn judge(node: &NodeStanding, job: JobId, record: &JobRecord, now: Millis, silent_after: Duration) -> NodeWhy {
    let of = |code: &'static str, text: String| NodeWhy { node_id: node.node_id.clone(), code, text };
    let beat = node.beat.as_ref();
    let reserved = node.reserved.filter(|_| node.reserved_until.is_some_and(|until| until > now));
    if !is_there(node, now, silent_after) {
        return of("silent", gone(node, now));
    }
    if beat.is_some_and(|beat| beat.weight == 0) {
        return of("drains", "its weight is 0".to_owned());
    }
    if let Some(shut) = beat.and_then(|beat| beat.closed.get(&record.queue)) {
        return of("window", shut.clone());
    }
    if let Some(paused) = beat.and_then(|beat| beat.paused.as_ref()) {
        return of("paused", paused.clone());
    }
    if node.asked_at.is_some() && !node.levels.iter().any(|level| level == record.queue.as_str()) {
        return of("level", format!("asks for {} only", node.levels.join(", ")));
    }
    if node.asked_at.is_some() && record.need_bytes > node.ceiling_bytes {
        let (need, ceiling) = (size(record.need_bytes), size(node.ceiling_bytes));
        return of("too_large", format!("needs {need}, its disk without the reserve has {ceiling}"));
    }
    let room = room_bytes(node, now);
    let of_bytes = || format!("has room for {}, needs {}", size(room), size(record.need_bytes));
    if !asks(node, now) {
        let running = beat.map_or(0, |beat| beat.running.len());
        let asked =
            node.asked_at.map_or_else(|| "has never asked".to_owned(), |at| format!("last asked {}", from(at, now)));
        let slots = beat.map_or(0, |beat| beat.slots);
        let busy = format!("{running} of {slots} slots busy, {asked}");
        // A slot that becomes free makes no room: what it fetched is stored.
        let is_full = beat.is_some_and(|beat| beat.room_bytes > 0) && room < record.need_bytes;
        return if is_full { of("no_room", format!("{}; {busy}", of_bytes())) } else { of("slots", busy) };
    }
    if let Some(other) = reserved {
        return if other == job {
            of("kept_for_it", "keeps its room for it".to_owned())
        } else {
            of("reserved", format!("keeps its room for job {other}, which is overdue"))
        };
    }
    let lacks_inodes = record.need_inodes > node.room_inodes;
    let of_inodes = || format!("has {} inodes, needs {}", node.room_inodes, record.need_inodes);
    match (room < record.need_bytes, lacks_inodes) {
        (true, true) => return of("no_room", format!("{}; {}", of_bytes(), of_inodes())),
        (true, false) => return of("no_room", of_bytes()),
        (false, true) => return of("no_room", of_inodes()),
        (false, false) => {}
    }
    let asked = node.asked_at.map_or_else(String::new, |at| format!(", asked {}", from(at, now)));
    match node.said.as_str() {
        "yields" if node.yields_to.is_empty() => of("yields", format!("is ahead of its share{asked}")),
        "yields" => of("yields", format!("is ahead of its share, lets node {} go first{asked}", node.yields_to)),
        "hosts" => of("asks", format!("was told that hosts may not be asked now{asked}")),
        "jobs" => of("asks", format!("was given others{asked}")),
        _ => of("asks", format!("has room{asked}")),
    }
}
