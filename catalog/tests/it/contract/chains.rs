//! What the catalog says of chains.

use longshore_catalog::Catalog;
use longshore_core::{ChainPosition, Millis, Outcome, chain::ChainState};

use super::{chain_ids, ids, put};
use crate::samples::{DAY, HOUR, chain, failed, key, link, stored};

pub(crate) async fn a_chain_ends_at_the_asked_time(catalog: &dyn Catalog) {
    let first = chain("3306", 0, 3);
    let second = chain("3306", 24, 2);
    let alone = stored("3307", 2);
    put(catalog, &[first.clone(), second.clone(), vec![alone.clone(), failed("3306", 2, "no")]].concat()).await;
    let at = |hours: i64| Millis(DAY.0 + hours * HOUR);
    let cases = [
        (at(0), first[..1].to_vec()),
        (at(1), first[..2].to_vec()),
        (Millis(at(3).0 - 1), first[..3].to_vec()),
        (at(23), first.clone()),
        (at(24), second[..1].to_vec()),
        (at(1000), second.clone()),
    ];
    for (at, expected) in cases {
        let found = catalog.chain(&key("3306"), at).await.unwrap().unwrap();
        assert_eq!(chain_ids(&found), ids(&expected), "at {at}");
        assert_eq!(found.state, ChainState::Whole, "at {at}");
        assert_eq!(found.size_bytes(), expected.iter().map(|report| report.job.size_bytes()).sum::<u64>());
    }
    assert_eq!(catalog.chain(&key("3306"), Millis(DAY.0 - 1)).await.unwrap(), None);
    let found = catalog.chain(&key("3307"), at(9)).await.unwrap().unwrap();
    assert_eq!((chain_ids(&found), found.state), (vec![alone.job.id], ChainState::Whole));
}

pub(crate) async fn a_chain_with_a_gap_is_called_broken(catalog: &dyn Catalog) {
    let mut reports = chain("3306", 0, 4);
    // The second increment was never stored, only reported.
    reports[2].outcome = Outcome::Failed;
    put(catalog, &reports).await;
    let found = catalog.chain(&key("3306"), Millis(DAY.0 + 4 * HOUR)).await.unwrap().unwrap();
    assert!(
        matches!(&found.state, ChainState::Broken { why } if why.contains(&reports[2].job.id.to_string())),
        "{found:?}"
    );
    assert_eq!(chain_ids(&found), [reports[0].job.id, reports[3].job.id, reports[4].job.id]);
    // Before the gap it is whole.
    let found = catalog.chain(&key("3306"), Millis(DAY.0 + HOUR)).await.unwrap().unwrap();
    assert_eq!(found.state, ChainState::Whole);
    // Without its full.
    let without_full = chain("3307", 0, 1);
    put(catalog, &without_full[1..]).await;
    let found = catalog.chain(&key("3307"), Millis(DAY.0 + 9 * HOUR)).await.unwrap().unwrap();
    assert!(matches!(found.state, ChainState::Broken { .. }));
}

pub(crate) async fn a_differential_needs_only_its_full(catalog: &dyn Catalog) {
    let full = chain("3306", 0, 0).remove(0);
    let mut reports = vec![full.clone()];
    for sequence in 1..=3 {
        let mut report = stored("3306", i64::from(sequence));
        report.job.chain = Some(link(ChainPosition::Differential, "full-0", 0, sequence, Some(&full)));
        reports.push(report);
    }
    put(catalog, &reports).await;
    let found = catalog.chain(&key("3306"), Millis(DAY.0 + 3 * HOUR)).await.unwrap().unwrap();
    assert_eq!(chain_ids(&found), [full.job.id, reports[3].job.id]);
    assert_eq!(found.state, ChainState::Whole);
}

pub(crate) async fn a_seed_chain_is_put_in_order_by_time(catalog: &dyn Catalog) {
    let mut reports = chain("3306", 0, 3);
    for report in &mut reports {
        let link = report.job.chain.as_mut().unwrap();
        link.previous = None;
        link.sequence = None;
    }
    // Another full of the same moment, and of another instance with the same name.
    let other = chain("3307", 0, 2);
    let mut shuffled = reports.clone();
    shuffled.reverse();
    put(catalog, &[other, shuffled].concat()).await;
    let found = catalog.chain(&key("3306"), Millis(DAY.0 + 2 * HOUR)).await.unwrap().unwrap();
    assert_eq!(chain_ids(&found), ids(&reports[..3]));
    assert_eq!(found.state, ChainState::Unproven);
}
