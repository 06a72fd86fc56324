//! The transitions: one Lua file each, put together with what they share. Each file's head says what it is given and answers.

use std::sync::LazyLock;

use redis::Script;

/// Before every key but the inboxes.
pub(super) const PREFIX: &str = "longshore:";

const INDEX: &str = include_str!("lua/index.lua");
const LEASE: &str = include_str!("lua/lease.lua");
const ENDING: &str = include_str!("lua/ending.lua");

fn compose(parts: &[&str]) -> Script {
    Script::new(&format!("local P = '{PREFIX}'\n{}", parts.join("\n")))
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
    ADMIT = "admit.lua" after [INDEX, ENDING];
    CLAIM = "claim.lua" after [INDEX];
    RENEW = "renew.lua" after [INDEX, LEASE];
    SETTLE = "settle.lua" after [INDEX, LEASE, ENDING];
    RETRY = "retry.lua" after [INDEX, LEASE];
    RELEASE = "release.lua" after [INDEX, LEASE];
    REAP = "reap.lua" after [INDEX, LEASE];
    BEAT = "beat.lua" after [INDEX];
    BUDGET = "budget.lua" after [INDEX];
    DEPTHS = "depths.lua" after [INDEX];
    REQUEUE = "requeue.lua" after [INDEX];
}
