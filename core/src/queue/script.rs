//! The transitions: one Lua file each, put together with what they share. Each file's head says what it is given and answers.

use std::sync::LazyLock;

use redis::Script;

/// Before every key but the inboxes.
pub(super) const PREFIX: &str = "longshore:";

const KEYS: &str = include_str!("lua/keys.lua");
const INDEX: &str = include_str!("lua/index.lua");
const HOST: &str = include_str!("lua/host.lua");
const ASIDE: &str = include_str!("lua/aside.lua");
const LEASE: &str = include_str!("lua/lease.lua");
const ENDING: &str = include_str!("lua/ending.lua");
const PLACE: &str = include_str!("lua/place.lua");
/// What operators do with jobs that wait.
const WAITING: &str = include_str!("lua/waiting.lua");
/// A claim is too long for one file: its parts, in the order in which they build on each other. The usual case answers before
/// the functions of the rarer ones are made.
const ASK: &str = include_str!("lua/claim/ask.lua");
const TAKE: &str = include_str!("lua/claim/take.lua");
const USUAL: &str = include_str!("lua/claim/usual.lua");
const SHARE: &str = include_str!("lua/claim/share.lua");
const CHOOSE: &str = include_str!("lua/claim/choose.lua");
const OVERDUE: &str = include_str!("lua/claim/overdue.lua");

fn compose(parts: &[&str]) -> Script {
    // Each part is a function within the one before: what a closure takes from further out is at hand there, while names of
    // its own function are searched for, one by one, for each closure that is made, each time a script runs.
    let nested = parts.join("\nreturn (function()\n");
    Script::new(&format!("local P = '{PREFIX}'\n{nested}{}", "\nend)()".repeat(parts.len() - 1)))
}

macro_rules! scripts {
    ($($name:ident = $file:literal after [$($shared:ident),*];)*) => {
        $(pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| compose(&[$($shared,)* include_str!(concat!("lua/", $file))]));)*
    };
}

scripts! {
    OFFER = "offer.lua" after [KEYS, ENDING];
    REPORT = "report.lua" after [KEYS, ENDING];
    PEEK = "peek.lua" after [KEYS];
    ADMIT = "admit.lua" after [KEYS, INDEX, PLACE, ENDING];
    CLAIM = "claim.lua" after [KEYS, HOST, ASK, TAKE, USUAL, SHARE, INDEX, ASIDE, CHOOSE, OVERDUE];
    RENEW = "renew.lua" after [KEYS, INDEX, ASIDE, LEASE];
    SETTLE = "settle.lua" after [KEYS, INDEX, HOST, ASIDE, LEASE, ENDING];
    RETRY = "retry.lua" after [KEYS, INDEX, ASIDE, LEASE];
    BURY = "bury.lua" after [KEYS, INDEX, ASIDE, LEASE];
    RELEASE = "release.lua" after [KEYS, INDEX, ASIDE, LEASE];
    REAP = "reap.lua" after [KEYS, INDEX, HOST, ASIDE, LEASE];
    HOST_FAILED = "host_failed.lua" after [KEYS, INDEX, HOST, ASIDE, LEASE];
    WINDOW = "window.lua" after [KEYS, INDEX, ASIDE];
    LIMIT_HOST = "limit_host.lua" after [KEYS, INDEX, ASIDE];
    POLICY = "policy.lua" after [KEYS];
    BEAT = "beat.lua" after [KEYS];
    FORGET = "forget.lua" after [KEYS, HOST];
    BUDGET = "budget.lua" after [KEYS];
    DEPTHS = "depths.lua" after [KEYS];
    HOLD = "hold.lua" after [KEYS, INDEX, WAITING];
    LET_GO = "let_go.lua" after [KEYS, INDEX, WAITING];
    MOVE = "move.lua" after [KEYS, INDEX, PLACE, WAITING];
    REQUEUE = "requeue.lua" after [KEYS, INDEX, ASIDE, LEASE, WAITING];
    CANCEL = "cancel.lua" after [KEYS, INDEX, ASIDE, LEASE, ENDING, WAITING];
    DROP = "drop.lua" after [KEYS, ENDING];
    PUSH_AGAIN = "push_again.lua" after [KEYS, ENDING];
    BROWSE = "browse.lua" after [KEYS];
    RESTING = "resting.lua" after [KEYS];
    WHY = "why.lua" after [KEYS, INDEX, ENDING];
    RELEVEL = "relevel.lua" after [KEYS, INDEX, PLACE];
}
