//! The transitions: one Lua file each, put together with what they share. Each file's head says what it is given and answers.

use std::sync::LazyLock;

use redis::Script;

/// Before every key but the inboxes.
pub(super) const PREFIX: &str = "longshore:";

const INDEX: &str = include_str!("lua/index.lua");
const HOST: &str = include_str!("lua/host.lua");
const LEASE: &str = include_str!("lua/lease.lua");
const ENDING: &str = include_str!("lua/ending.lua");
const PLACE: &str = include_str!("lua/place.lua");
/// What operators do with jobs that wait.
const WAITING: &str = include_str!("lua/waiting.lua");
/// A claim is too long for one file: its parts, in the order in which they build on each other.
const ASK: &str = include_str!("lua/claim/ask.lua");
const SHARE: &str = include_str!("lua/claim/share.lua");
const CHOOSE: &str = include_str!("lua/claim/choose.lua");
const OVERDUE: &str = include_str!("lua/claim/overdue.lua");
const TAKE: &str = include_str!("lua/claim/take.lua");

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
    OFFER = "offer.lua" after [INDEX, ENDING];
    REPORT = "report.lua" after [INDEX, ENDING];
    PEEK = "peek.lua" after [INDEX];
    ADMIT = "admit.lua" after [INDEX, PLACE, ENDING];
    CLAIM = "claim.lua" after [INDEX, HOST, ASK, SHARE, CHOOSE, OVERDUE, TAKE];
    RENEW = "renew.lua" after [INDEX, HOST, LEASE];
    SETTLE = "settle.lua" after [INDEX, HOST, LEASE, ENDING];
    RETRY = "retry.lua" after [INDEX, HOST, LEASE];
    RELEASE = "release.lua" after [INDEX, HOST, LEASE];
    REAP = "reap.lua" after [INDEX, HOST, LEASE];
    HOST_FAILED = "host_failed.lua" after [INDEX, HOST, LEASE];
    WINDOW = "window.lua" after [INDEX, HOST];
    LIMIT_HOST = "limit_host.lua" after [INDEX, HOST];
    POLICY = "policy.lua" after [INDEX];
    BEAT = "beat.lua" after [INDEX];
    BUDGET = "budget.lua" after [INDEX];
    DEPTHS = "depths.lua" after [INDEX];
    HOLD = "hold.lua" after [INDEX, WAITING];
    LET_GO = "let_go.lua" after [INDEX, WAITING];
    MOVE = "move.lua" after [INDEX, PLACE, WAITING];
    REQUEUE = "requeue.lua" after [INDEX, HOST, LEASE, WAITING];
    CANCEL = "cancel.lua" after [INDEX, HOST, LEASE, ENDING, WAITING];
    DROP = "drop.lua" after [INDEX];
    PUSH_AGAIN = "push_again.lua" after [INDEX, ENDING];
    BROWSE = "browse.lua" after [INDEX];
    RESTING = "resting.lua" after [INDEX];
    WHY = "why.lua" after [INDEX, ENDING];
    RELEVEL = "relevel.lua" after [INDEX, PLACE];
}
