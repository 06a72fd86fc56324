//! From the stored backups of one full to the order in which they are applied. Both back-ends find the members; what is
//! made of them is decided here, once.

use std::collections::HashMap;

use longshore_core::{
    JobId,
    chain::{self, ChainLink, ChainPosition, ChainState, FullBackup},
};

use crate::{Backup, Chain};

/// The full whose other members are needed to restore `wanted`; `None` when it is restored alone.
pub(crate) fn full_needed(wanted: &Backup) -> Option<&FullBackup> {
    link_of(wanted).filter(|link| link.position != ChainPosition::Full).map(|link| &link.full)
}

/// The chain that ends with `wanted`. `members` are stored backups of the same instance and the same full, made no later
/// than it, in any order; `wanted` may be among them. They are not needed for a backup without a chain or a full.
pub(crate) fn assemble(wanted: Backup, members: Vec<Backup>) -> Chain {
    let Some(link) = wanted.report.job.chain.clone() else {
        return Chain { backups: vec![wanted], state: ChainState::Whole };
    };
    let mut backups = match link.position {
        ChainPosition::Full => Vec::new(),
        ChainPosition::Differential => newest_full(members, &link).into_iter().collect(),
        ChainPosition::Increment if link.previous.is_some() => walk_back(members, &wanted, &link),
        ChainPosition::Increment => by_time(members, &wanted, &link),
    };
    backups.push(wanted);
    let state =
        chain::judge(backups.iter().filter_map(|backup| Some((backup.id(), backup.report.job.chain.as_ref()?))));
    Chain { backups, state }
}

fn link_of(backup: &Backup) -> Option<&ChainLink> {
    backup.report.job.chain.as_ref()
}

fn position_of(backup: &Backup) -> Option<ChainPosition> {
    link_of(backup).map(|link| link.position)
}

/// A full handed over twice is one full: the later entry of it serves.
fn newest_full(members: Vec<Backup>, link: &ChainLink) -> Option<Backup> {
    members
        .into_iter()
        .filter(|backup| link_of(backup).is_some_and(|l| l.position == ChainPosition::Full && l.full == link.full))
        .max_by_key(Backup::id)
}

/// Follows `previous` from the wanted one back to the full. Where it leads to nothing, the full (if there) stands alone
/// before the gap, and the judge says what is missing.
fn walk_back(members: Vec<Backup>, wanted: &Backup, link: &ChainLink) -> Vec<Backup> {
    let mut by_id: HashMap<JobId, Backup> = members.into_iter().map(|backup| (backup.id(), backup)).collect();
    by_id.remove(&wanted.id());
    let mut backups = Vec::new();
    let mut next = link.previous;
    while let Some(backup) = next.and_then(|id| by_id.remove(&id)) {
        next = link_of(&backup).and_then(|link| link.previous);
        backups.push(backup);
    }
    if backups.last().is_none_or(|first| position_of(first) != Some(ChainPosition::Full)) {
        backups.extend(newest_full(by_id.into_values().collect(), link));
    }
    backups.reverse();
    backups
}

/// Links that don't say what was before them (the seed's): the full, then every increment by time.
fn by_time(members: Vec<Backup>, wanted: &Backup, link: &ChainLink) -> Vec<Backup> {
    let order = |backup: &Backup| (backup.report.job.made_at, backup.id());
    let (fulls, mut increments): (Vec<_>, Vec<_>) = members
        .into_iter()
        .filter(|backup| link_of(backup).is_some_and(|l| l.full == link.full))
        .partition(|backup| position_of(backup) == Some(ChainPosition::Full));
    increments.retain(|backup| position_of(backup) == Some(ChainPosition::Increment) && order(backup) < order(wanted));
    increments.sort_by_key(order);
    newest_full(fulls, link).into_iter().chain(increments).collect()
}
