//! The contract suite: every promise of the trait, on whatever back-end it is given. Each case has an empty catalog of its own.

mod chains;

use std::time::Duration;

use longshore_catalog::{
    Bucket, Catalog, CatalogError, Chain, CountBy, Cursor, Filter, Freshness, FreshnessQuery, HostSeen, Order, Put,
    SearchQuery, SortBy, Standing, TimeSpan, Totals,
};
use longshore_core::{JobId, Millis, Outcome, ReasonCode, Report};

use crate::samples::{DAY, HOUR, beat, example, failed, key, stored};

/// One `#[tokio::test]` for each case, on the catalog that `$open` gives (with what keeps it alive).
macro_rules! contract_suite {
    ($open:expr) => {
        contract_suite! { @cases $open;
            an_empty_catalog_answers_everything
            what_was_put_is_there_whole
            the_same_report_twice_is_one_entry
            an_older_revision_never_undoes_a_newer_one
            what_is_stored_stands_against_a_later_failure
            a_success_replaces_the_failure_and_its_words
            what_cannot_be_held_is_refused_alone
            a_long_reason_is_cut_and_found
            each_filter_finds_its_own
            phrases_are_found_in_chinese_and_english
            pages_have_neither_gap_nor_double_in_any_order
            a_cursor_of_another_query_is_refused
            the_latest_good_is_not_a_failure
            a_chain_ends_at_the_asked_time
            a_chain_with_a_gap_is_called_broken
            a_differential_needs_only_its_full
            a_seed_chain_is_put_in_order_by_time
            counts_add_up
            freshness_does_not_depend_on_the_order_of_reports
            late_instances_are_found_and_paged
            hosts_keep_their_latest_beat
        }
    };
    (@cases $open:expr; $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let (catalog, _alive) = $open.await;
                $crate::contract::$case(&*catalog).await;
            }
        )*
    };
}
pub(crate) use contract_suite;

pub(crate) use chains::*;

async fn put(catalog: &dyn Catalog, reports: &[Report]) {
    let results = catalog.put(reports).await.unwrap();
    assert_eq!(results, vec![Put::Written; reports.len()]);
    catalog.refresh().await.unwrap();
}

async fn found(catalog: &dyn Catalog, filter: Filter) -> Vec<JobId> {
    let query = SearchQuery { filter, limit: 1000, ..SearchQuery::default() };
    let page = catalog.search(&query).await.unwrap();
    assert_eq!(page.next, None);
    page.items.iter().map(longshore_catalog::Backup::id).collect()
}

fn ids(reports: &[Report]) -> Vec<JobId> {
    reports.iter().map(|report| report.job.id).collect()
}

fn chain_ids(chain: &Chain) -> Vec<JobId> {
    chain.backups.iter().map(longshore_catalog::Backup::id).collect()
}

pub(crate) async fn an_empty_catalog_answers_everything(catalog: &dyn Catalog) {
    catalog.health().await.unwrap();
    catalog.ensure_schema().await.unwrap();
    assert_eq!(catalog.put(&[]).await.unwrap(), []);
    catalog.put_freshness(&[]).await.unwrap();
    catalog.put_hosts(&[]).await.unwrap();
    assert_eq!(catalog.by_id(JobId::fresh()).await.unwrap(), None);
    assert_eq!(found(catalog, Filter::default()).await, []);
    assert_eq!(catalog.latest_good(&key("3306")).await.unwrap(), None);
    assert_eq!(catalog.chain(&key("3306"), Millis::now()).await.unwrap(), None);
    assert_eq!(catalog.counts(CountBy::Type, &Filter::default()).await.unwrap(), []);
    assert_eq!(catalog.totals(&Filter::default()).await.unwrap(), Totals::default());
    assert_eq!(catalog.freshness_of(&key("3306")).await.unwrap(), None);
    assert_eq!(catalog.freshness(&FreshnessQuery::default()).await.unwrap().items, []);
    assert_eq!(catalog.host(&"111111".parse().unwrap()).await.unwrap(), None);
    assert_eq!(catalog.hosts(10, None).await.unwrap().items, []);
}

pub(crate) async fn what_was_put_is_there_whole(catalog: &dyn Catalog) {
    let mut report = example();
    report.extra.insert(
        "later".to_owned(),
        serde_json::json!({"nested": [1, "二", 0.1], "large": 18_000_000_000_000_000_000_u64}),
    );
    report.job.extra.insert("dotted.name".to_owned(), serde_json::json!(null));
    assert_eq!(catalog.put(std::slice::from_ref(&report)).await.unwrap(), [Put::Written]);
    // Without a refresh: an entry is found by its id at once.
    assert_eq!(catalog.by_id(report.job.id).await.unwrap().unwrap().report, report);
    assert_eq!(catalog.by_id(JobId::fresh()).await.unwrap(), None);
}

pub(crate) async fn the_same_report_twice_is_one_entry(catalog: &dyn Catalog) {
    let reports = [stored("3306", 0), stored("3307", 0)];
    put(catalog, &reports).await;
    put(catalog, &reports).await;
    put(catalog, &[reports[0].clone(), reports[0].clone()]).await;
    assert_eq!(catalog.totals(&Filter::default()).await.unwrap().count, 2);
}

pub(crate) async fn an_older_revision_never_undoes_a_newer_one(catalog: &dyn Catalog) {
    let mut newer = stored("3306", 0);
    newer.revision += 1_000_000;
    let mut older = newer.clone();
    older.revision -= 1;
    older.outcome = Outcome::Failed;
    put(catalog, std::slice::from_ref(&newer)).await;
    assert_eq!(catalog.put(&[older.clone(), stored("3307", 0)]).await.unwrap(), [Put::Older, Put::Written]);
    catalog.refresh().await.unwrap();
    assert_eq!(catalog.by_id(newer.job.id).await.unwrap().unwrap().report, newer);
    // In one batch as well.
    let mut newest = newer.clone();
    newest.revision += 5;
    assert_eq!(catalog.put(&[newest.clone(), newer.clone()]).await.unwrap(), [Put::Written, Put::Older]);
    assert_eq!(catalog.by_id(newer.job.id).await.unwrap().unwrap().report.revision, newest.revision);
    let standings = catalog.standings(&[JobId::fresh(), newer.job.id]).await.unwrap();
    assert_eq!(standings, [None, Some(Standing { is_stored: true, revision: newest.revision })]);
}

pub(crate) async fn what_is_stored_stands_against_a_later_failure(catalog: &dyn Catalog) {
    let with = |report: &Report, outcome, revision| {
        let base = if outcome == Outcome::Stored { stored("3306", 0) } else { failed("3306", 0, "the file is gone") };
        Report { job: report.job.clone(), outcome, revision, ..base }
    };
    for later in [Outcome::Failed, Outcome::Refused, Outcome::Cancelled] {
        let good = stored("3306", 0);
        put(catalog, std::slice::from_ref(&good)).await;
        let bad = with(&good, later, good.revision + 1_000_000);
        assert_eq!(catalog.put(std::slice::from_ref(&bad)).await.unwrap(), [Put::Older]);
        assert_eq!(catalog.by_id(good.job.id).await.unwrap().unwrap().report, good);
        // A later good one (it has a copy now) replaces it, and the failure between the two changes nothing.
        let copied = with(&good, Outcome::Stored, bad.revision + 1);
        put(catalog, std::slice::from_ref(&copied)).await;
        assert_eq!(catalog.put(&[bad, good]).await.unwrap(), [Put::Older, Put::Older]);
        assert_eq!(catalog.by_id(copied.job.id).await.unwrap().unwrap().report, copied);
    }
    // In the other order the end is the same.
    let bad = failed("3307", 0, "the file is gone");
    put(catalog, std::slice::from_ref(&bad)).await;
    let good = with(&bad, Outcome::Stored, bad.revision - 1_000_000);
    put(catalog, std::slice::from_ref(&good)).await;
    assert_eq!(catalog.by_id(bad.job.id).await.unwrap().unwrap().report, good);
}

pub(crate) async fn a_success_replaces_the_failure_and_its_words(catalog: &dyn Catalog) {
    let failure = failed("3306", 0, "connection refused");
    put(catalog, std::slice::from_ref(&failure)).await;
    let text = |text: &str| Filter { text: Some(text.to_owned()), ..Filter::default() };
    assert_eq!(found(catalog, text("connection refused")).await, [failure.job.id]);
    let mut success = stored("3306", 0);
    success.job.id = failure.job.id;
    put(catalog, std::slice::from_ref(&success)).await;
    assert_eq!(found(catalog, text("connection refused")).await, []);
    assert_eq!(catalog.by_id(failure.job.id).await.unwrap().unwrap().report, success);
    assert_eq!(catalog.totals(&Filter::default()).await.unwrap().count, 1);
}

pub(crate) async fn what_cannot_be_held_is_refused_alone(catalog: &dyn Catalog) {
    let mut before_time = stored("3306", 0);
    before_time.job.made_at = Millis(-1);
    let mut after_time = stored("3306", 1);
    after_time.stored_at = Millis(i64::MAX);
    let mut too_new = stored("3306", 2);
    too_new.revision = u64::MAX;
    let good = stored("3306", 3);
    let results = catalog.put(&[before_time, after_time, good.clone(), too_new]).await.unwrap();
    let refused = |put: &Put| matches!(put, Put::Refused(why) if !why.is_empty());
    assert!(refused(&results[0]) && refused(&results[1]) && refused(&results[3]), "{results:?}");
    assert_eq!(results[2], Put::Written);
    catalog.refresh().await.unwrap();
    assert_eq!(found(catalog, Filter::default()).await, [good.job.id]);
}

pub(crate) async fn a_long_reason_is_cut_and_found(catalog: &dyn Catalog) {
    let mut report = failed("3306", 0, "x");
    let text = format!("first words {} last words", "磁盘已满 ".repeat(20_000));
    report.reason = Some(longshore_core::report::Reason { code: ReasonCode::ScriptWrong, text });
    put(catalog, std::slice::from_ref(&report)).await;
    let kept = catalog.by_id(report.job.id).await.unwrap().unwrap().report.reason.unwrap();
    assert!(kept.text.len() <= 8192 && kept.text.starts_with("first words 磁盘已满"), "{} bytes", kept.text.len());
    let text = |text: &str| Filter { text: Some(text.to_owned()), ..Filter::default() };
    assert_eq!(found(catalog, text("first words")).await, [report.job.id]);
    assert_eq!(found(catalog, text("last words")).await, []);
}

pub(crate) async fn each_filter_finds_its_own(catalog: &dyn Catalog) {
    let plain = stored("3306", 0);
    let mut other = failed("3307", 5, "no");
    other.job.server_id = "222222".parse().unwrap();
    other.job.backup_type = "redis".parse().unwrap();
    other.job.business_id = "32".parse().unwrap();
    other.node_id = Some("6".parse().unwrap());
    let mut nowhere = failed("3308", 9, "no");
    nowhere.node_id = None;
    nowhere.outcome = Outcome::Refused;
    nowhere.reason = Some(longshore_core::report::Reason::new(ReasonCode::UnsafePath, "climbs"));
    put(catalog, &[plain.clone(), other.clone(), nowhere.clone()]).await;
    let (plain, other, nowhere) = (plain.job.id, other.job.id, nowhere.job.id);
    let hour = |hours: i64| Some(Millis(DAY.0 + hours * HOUR));
    let none = Filter::default;
    let cases = [
        (none(), vec![nowhere, other, plain]),
        (Filter { server_id: Some("222222".parse().unwrap()), ..none() }, vec![other]),
        (Filter { backup_type: Some("mysql".parse().unwrap()), ..none() }, vec![nowhere, plain]),
        (Filter { instance: Some("3308".parse().unwrap()), ..none() }, vec![nowhere]),
        (Filter { business_id: Some("31".parse().unwrap()), ..none() }, vec![nowhere, plain]),
        (Filter { node_id: Some("6".parse().unwrap()), ..none() }, vec![other]),
        (Filter { outcomes: vec![Outcome::Stored], ..none() }, vec![plain]),
        (Filter { outcomes: vec![Outcome::Failed, Outcome::Refused], ..none() }, vec![nowhere, other]),
        (Filter { reason: Some(ReasonCode::UnsafePath), ..none() }, vec![nowhere]),
        (Filter { made: TimeSpan { from: hour(0), until: hour(5) }, ..none() }, vec![plain]),
        (Filter { made: TimeSpan { from: hour(5), until: None }, ..none() }, vec![nowhere, other]),
        (Filter { stored: TimeSpan { from: None, until: hour(6) }, ..none() }, vec![other, plain]),
        (Filter { backup_type: Some("mysql".parse().unwrap()), outcomes: vec![Outcome::Failed], ..none() }, vec![]),
    ];
    for (filter, expected) in cases {
        assert_eq!(found(catalog, filter.clone()).await, expected, "{filter:?}");
    }
}

pub(crate) async fn phrases_are_found_in_chinese_and_english(catalog: &dyn Catalog) {
    let chinese = failed("3306", 0, "备份失败：磁盘空间不足，无法写入 /data/backup_3306");
    let english = failed("3307", 1, "rsync: Connection refused (111) to db-31-7.internal");
    put(catalog, &[chinese.clone(), english.clone(), stored("3308", 2)]).await;
    let (chinese, english) = (chinese.job.id, english.job.id);
    let cases = [
        ("失败", vec![chinese]),
        ("空间不足", vec![chinese]),
        ("磁盘 空间", vec![chinese]),
        ("足不", vec![]),
        ("失败磁盘空间", vec![chinese]),
        ("成功", vec![]),
        ("backup_3306", vec![chinese]),
        ("connection REFUSED", vec![english]),
        ("refused connection", vec![]),
        ("refuse", vec![]),
        ("db-31-7.internal", vec![english]),
        ("\"connection\" OR 失败", vec![]),
        ("*", vec![]),
        ("", vec![]),
    ];
    for (text, expected) in cases {
        let filter = Filter { text: Some(text.to_owned()), ..Filter::default() };
        assert_eq!(found(catalog, filter).await, expected, "{text:?}");
    }
}

pub(crate) async fn pages_have_neither_gap_nor_double_in_any_order(catalog: &dyn Catalog) {
    let mut reports = Vec::new();
    for n in 0..23_i64 {
        // Many share a time and a size, so that only the id orders them.
        let mut report = stored("3306", n / 5);
        if let Some(content) = &mut report.job.content {
            content.size_bytes = u64::try_from(n % 3).unwrap() * 1000;
        }
        reports.push(report);
    }
    put(catalog, &reports).await;
    for sort in [SortBy::MadeAt, SortBy::StoredAt, SortBy::SizeBytes] {
        for order in [Order::Ascending, Order::Descending] {
            let value = |report: &Report| match sort {
                SortBy::MadeAt => report.job.made_at.0,
                SortBy::StoredAt => report.stored_at.0,
                SortBy::SizeBytes => i64::try_from(report.job.size_bytes()).unwrap(),
            };
            let mut expected = reports.clone();
            expected.sort_by_key(|report| (value(report), report.job.id));
            if order == Order::Descending {
                expected.reverse();
            }
            for limit in [1, 5, 23, 100] {
                let mut seen = Vec::new();
                let mut query = SearchQuery { sort, order, limit, ..SearchQuery::default() };
                loop {
                    let page = catalog.search(&query).await.unwrap();
                    assert!(page.items.len() <= limit as usize);
                    seen.extend(page.items.iter().map(longshore_catalog::Backup::id));
                    let Some(next) = page.next else { break };
                    assert!(!page.items.is_empty());
                    // As a client would send it back.
                    query.cursor = Some(Cursor::from_text(next.as_str()));
                }
                assert_eq!(seen, ids(&expected), "{sort:?} {order:?} by {limit}");
            }
        }
    }
}

pub(crate) async fn a_cursor_of_another_query_is_refused(catalog: &dyn Catalog) {
    put(catalog, &[stored("3306", 0), stored("3306", 1)]).await;
    let first = SearchQuery { limit: 1, ..SearchQuery::default() };
    let cursor = catalog.search(&first).await.unwrap().next.unwrap();
    let other = SearchQuery { sort: SortBy::SizeBytes, cursor: Some(cursor.clone()), ..first.clone() };
    assert!(matches!(catalog.search(&other).await, Err(CatalogError::Cursor)));
    for text in ["", "nonsense", "W10", "'; DROP TABLE backup; --"] {
        let query = SearchQuery { cursor: Some(Cursor::from_text(text)), ..first.clone() };
        assert!(matches!(catalog.search(&query).await, Err(CatalogError::Cursor)), "{text:?}");
    }
    let query = FreshnessQuery { cursor: Some(cursor.clone()), ..FreshnessQuery::default() };
    assert!(matches!(catalog.freshness(&query).await, Err(CatalogError::Cursor)));
    assert!(matches!(catalog.hosts(10, Some(&cursor)).await, Err(CatalogError::Cursor)));
}

pub(crate) async fn the_latest_good_is_not_a_failure(catalog: &dyn Catalog) {
    let good = stored("3306", 3);
    put(catalog, &[stored("3306", 1), good.clone(), failed("3306", 4, "no"), stored("3307", 9)]).await;
    assert_eq!(catalog.latest_good(&key("3306")).await.unwrap().unwrap().report, good);
}

pub(crate) async fn counts_add_up(catalog: &dyn Catalog) {
    let mut reports = vec![stored("3306", 0), stored("3306", 15), stored("3306", 17), failed("3306", 30, "no")];
    reports[1].job.business_id = "32".parse().unwrap();
    reports[2].job.backup_type = "redis".parse().unwrap();
    reports[3].node_id = None;
    for report in &mut reports {
        report.job.content.as_mut().unwrap().size_bytes = 10;
    }
    put(catalog, &reports).await;
    let bucket = |key: &str, count: u64| Bucket { key: key.to_owned(), count, bytes: count * 10 };
    let all = Filter::default();
    let cases = [
        (CountBy::Day { utc_offset_minutes: 0 }, vec![bucket("2026-11-20", 3), bucket("2026-11-21", 1)]),
        (CountBy::Day { utc_offset_minutes: 480 }, vec![bucket("2026-11-20", 2), bucket("2026-11-21", 2)]),
        (
            CountBy::Day { utc_offset_minutes: -300 },
            vec![bucket("2026-11-19", 1), bucket("2026-11-20", 2), bucket("2026-11-21", 1)],
        ),
        (CountBy::Business, vec![bucket("31", 3), bucket("32", 1)]),
        (CountBy::Type, vec![bucket("mysql", 3), bucket("redis", 1)]),
        (CountBy::Node, vec![bucket("5", 3)]),
        (CountBy::Outcome, vec![bucket("failed", 1), bucket("stored", 3)]),
    ];
    for (by, expected) in cases {
        assert_eq!(catalog.counts(by, &all).await.unwrap(), expected, "{by:?}");
    }
    let good =
        Filter { outcomes: vec![Outcome::Stored], business_id: Some("31".parse().unwrap()), ..Filter::default() };
    assert_eq!(catalog.counts(CountBy::Type, &good).await.unwrap(), [bucket("mysql", 1), bucket("redis", 1)]);
    let totals = Totals {
        count: 2,
        bytes: 20,
        first_made_at: Some(reports[0].job.made_at),
        last_made_at: Some(reports[2].job.made_at),
    };
    assert_eq!(catalog.totals(&good).await.unwrap(), totals);
}

pub(crate) async fn freshness_does_not_depend_on_the_order_of_reports(catalog: &dyn Catalog) {
    let mut reports = vec![stored("3306", 0), failed("3306", 1, "first"), stored("3306", 2), failed("3306", 3, "last")];
    // The host's clock runs ahead: what counts is when it was stored.
    reports[2].job.made_at = Millis(reports[2].stored_at.0 + 5 * HOUR);
    let expected = Freshness::summary(&reports).remove(0);
    assert_eq!(expected.last_good.as_ref().unwrap().point, reports[2].stored_at);
    assert_eq!(expected.last_report.reason.as_ref().unwrap().text, "last");
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
        for at in order {
            catalog.put_freshness(&[Freshness::of(&reports[at])]).await.unwrap();
        }
        catalog.put_freshness(&Freshness::summary(&reports[..2])).await.unwrap();
        assert_eq!(catalog.freshness_of(&key("3306")).await.unwrap().unwrap(), expected);
    }
}

pub(crate) async fn late_instances_are_found_and_paged(catalog: &dyn Catalog) {
    // Each has an interval of an hour: due at hour 1, 2, 3 ... and one that never was good.
    let mut reports: Vec<Report> = (0..7).map(|n| stored(&format!("330{n}"), n)).collect();
    reports.push(failed("3309", 0, "no"));
    reports[6].job.server_id = "222222".parse().unwrap();
    reports[6].job.business_id = "32".parse().unwrap();
    catalog.put_freshness(&Freshness::summary(&reports)).await.unwrap();
    catalog.put_hosts(&[HostSeen { seen_at: DAY, beat: beat("111111", DAY) }]).await.unwrap();
    catalog.refresh().await.unwrap();
    let all = |query: FreshnessQuery| async move {
        let mut query = query;
        let mut seen = Vec::new();
        loop {
            let page = catalog.freshness(&query).await.unwrap();
            seen.extend(page.items);
            match page.next {
                Some(next) => query.cursor = Some(next),
                None => return seen,
            }
        }
    };
    let names = |records: &[Freshness]| records.iter().map(|r| r.key.instance.to_string()).collect::<Vec<_>>();
    for limit in [1, 3, 100] {
        let everything = all(FreshnessQuery { limit, ..FreshnessQuery::default() }).await;
        assert_eq!(names(&everything), ["3300", "3301", "3302", "3303", "3304", "3305", "3309", "3306"]);
        assert_eq!(everything[0].host_seen, Some(DAY));
        assert_eq!(everything[7].host_seen, None);
        let (now, grace) = (Millis(DAY.0 + 4 * HOUR), Duration::from_secs(1800));
        let late =
            all(FreshnessQuery { due_before: Some(Millis(now.0 - 1_800_000)), limit, ..FreshnessQuery::default() })
                .await;
        assert_eq!(names(&late), ["3300", "3301", "3302", "3309"]);
        let late_by_record: Vec<_> = everything.iter().filter(|record| record.is_late(now, grace)).cloned().collect();
        assert_eq!(late, late_by_record);
    }
    let of_host = all(FreshnessQuery { server_id: Some("222222".parse().unwrap()), ..FreshnessQuery::default() }).await;
    assert_eq!(names(&of_host), ["3306"]);
    let of_business =
        all(FreshnessQuery { business_id: Some("31".parse().unwrap()), ..FreshnessQuery::default() }).await;
    assert_eq!(of_business.len(), 7);
    let of_type =
        all(FreshnessQuery { backup_type: Some("redis".parse().unwrap()), ..FreshnessQuery::default() }).await;
    assert_eq!(of_type, []);
}

pub(crate) async fn hosts_keep_their_latest_beat(catalog: &dyn Catalog) {
    let seen = |server_id: &str, minutes: i64| {
        let at = Millis(DAY.0 + minutes * 60_000);
        HostSeen { seen_at: at, beat: beat(server_id, at) }
    };
    catalog.put_hosts(&[seen("a", 5), seen("b", 1), seen("c", 1)]).await.unwrap();
    catalog.put_hosts(&[seen("a", 3), seen("b", 9)]).await.unwrap();
    catalog.put_hosts(&[seen("b", 8), seen("b", 7)]).await.unwrap();
    catalog.refresh().await.unwrap();
    let page = catalog.hosts(2, None).await.unwrap();
    assert_eq!(page.items, [seen("a", 5), seen("b", 9)]);
    let page = catalog.hosts(2, page.next.as_ref()).await.unwrap();
    assert_eq!((page.items, page.next), (vec![seen("c", 1)], None));
    assert_eq!(catalog.host(&"b".parse().unwrap()).await.unwrap(), Some(seen("b", 9)));
}
