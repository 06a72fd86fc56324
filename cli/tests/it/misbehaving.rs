//! Nodes that break off, send what is wrong, lie about a backup, or are gone: played by a small server of the test, since a
//! real puller does none of that on demand.

use std::{
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use longshore_core::{Job, JobId, Millis, Report, report::Copy};
use serde_json::{Value, json};

use crate::site::{SOON, Site, beat, bytes};

const KEY: &str = "111111/mysql/3306";
const SIZE: usize = 400_000;

/// How the played node behaves.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Good,
    /// Breaks off in the middle of each answer, after so many bytes.
    Breaks(usize),
    /// Sends so many bytes of its first answer, and then nothing, for ever.
    Stalls(usize),
    /// Sends other bytes of the right length.
    Wrong,
    /// Lists a path that leaves the backup.
    Climbs,
    /// Has taken its slots.
    Busy(u32),
    /// Says that the token does not open the backup, so many times.
    Refuses(u32),
}

/// What was given to the server so far goes out while its body has nothing more; an error at once would take it along.
const FLUSH: Duration = Duration::from_millis(50);

/// A body that gives `beginning`, and then breaks off, or never ends.
fn broken(beginning: &[u8], after: Option<Duration>) -> Body {
    let first = futures_util::stream::iter([Ok(Bytes::copy_from_slice(beginning))]);
    let end = futures_util::stream::once(async move {
        match after {
            Some(after) => tokio::time::sleep(after).await,
            None => std::future::pending().await,
        }
        Err::<Bytes, _>(std::io::Error::other("cut"))
    });
    Body::from_stream(futures_util::StreamExt::chain(first, end))
}

struct Played {
    manner: Manner,
    listing: Value,
    answers: AtomicU32,
    ranges: Mutex<Vec<Option<String>>>,
}

async fn file(State(node): State<Arc<Played>>, Path(_): Path<(String, String)>, headers: HeaderMap) -> Response {
    let range = headers.get(header::RANGE).map(|value| value.to_str().unwrap().to_owned());
    node.ranges.lock().unwrap().push(range.clone());
    let answer = node.answers.fetch_add(1, Ordering::SeqCst);
    let all = if node.manner == Manner::Wrong { bytes(SIZE, 99) } else { bytes(SIZE, 1) };
    let from = range.map_or(0, |range| range["bytes=".len()..range.len() - 1].parse::<usize>().unwrap());
    let (body, status) = (all[from..].to_vec(), if from > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK });
    let rest = body.len();
    let body = match node.manner {
        Manner::Busy(times) if answer < times => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Manner::Refuses(times) if answer < times => return StatusCode::FORBIDDEN.into_response(),
        Manner::Breaks(after) if rest > after => broken(&body[..after], Some(FLUSH)),
        Manner::Stalls(after) if answer == 0 => broken(&body[..after], None),
        _ => Body::from(body),
    };
    let range = format!("bytes {from}-{}/{SIZE}", SIZE - 1);
    (status, [(header::CONTENT_RANGE, range)], body).into_response()
}

/// A site whose backup `full.xb` is on played nodes of these manners, the first being the original.
async fn site(manners: &[Manner]) -> (Site, Vec<Arc<Played>>) {
    let site = Site::start().await;
    site.write("full.xb", SIZE, 1);
    let job = site.job(KEY, "full.xb");
    let mut nodes = Vec::new();
    for (number, manner) in manners.iter().enumerate() {
        let path = if *manner == Manner::Climbs { "../full.xb" } else { "full.xb" };
        let listing = json!({"files": [{"path": path, "size_bytes": SIZE, "xxh3_128": null}]});
        let node = Arc::new(Played { manner: *manner, listing, answers: AtomicU32::new(0), ranges: Mutex::default() });
        let router = Router::new()
            .route("/v1/backups/{job}", get(async |State(node): State<Arc<Played>>| Json(node.listing.clone())))
            .route("/v1/backups/{job}/files/{*path}", get(file))
            .with_state(Arc::clone(&node));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let serve = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, router).into_future());
        site.queue.beat(&beat(&format!("n{number}"), Some(serve))).await.unwrap();
        nodes.push(node);
    }
    site.index(&[report(job, manners.len())]).await;
    (site, nodes)
}

fn report(job: Job, nodes: usize) -> Report {
    let mut report: Report = serde_json::from_str(include_str!("../../../core/fixtures/report-v1.json")).unwrap();
    (report.stored_at, report.node_id) = (Millis::now(), Some("n0".parse().unwrap()));
    report.revision = Millis::now().0 as u64 * 1000;
    report.job = job;
    report.copies = (1..nodes)
        .map(|number| Copy {
            node_id: format!("n{number}").parse().unwrap(),
            path: "copy".parse().unwrap(),
            stored_at: Millis::now(),
        })
        .collect();
    report
}

fn restored(site: &Site) -> Vec<u8> {
    fs::read(site.folder.path().join("to/01/full.xb")).unwrap()
}

const FETCH: &[&str] = &["restore", "fetch", KEY, "--to", "to", "--json"];

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_breaks_off_goes_on_where_it_ended() {
    let (site, nodes) = site(&[Manner::Breaks(150_000)]).await;
    let run = site.run(FETCH).await.ended(0);
    assert_eq!(restored(&site), bytes(SIZE, 1));
    assert_eq!(run.json()["bytes_moved"], SIZE, "no byte came twice");
    let ranges = nodes[0].ranges.lock().unwrap().clone();
    assert_eq!(ranges, [None, Some("bytes=150000-".to_owned()), Some("bytes=300000-".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_fetch_is_continued_by_the_same_command() {
    let (site, nodes) = site(&[Manner::Stalls(300_000)]).await;
    let mut child = site.command().args(FETCH).stderr(std::process::Stdio::null()).spawn().unwrap();
    let partial = site.folder.path().join("to/.partial/01/full.xb");
    let arrived = async || fs::metadata(&partial).is_ok_and(|found| found.len() == 300_000);
    longshore_tests::wait_until("300,000 bytes are on the disk", SOON, arrived).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!site.folder.path().join("to/01/full.xb").exists(), "under its name only when it is whole");
    let again = site.run(FETCH).await.ended(0);
    assert_eq!(again.json()["bytes_moved"], SIZE - 300_000);
    assert_eq!(restored(&site), bytes(SIZE, 1));
    assert_eq!(nodes[0].ranges.lock().unwrap().last().unwrap().as_deref(), Some("bytes=300000-"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_breaks_often_is_no_end_while_something_arrives() {
    // Ten breaks, more than the tries that a node has without bringing anything.
    let (site, _) = site(&[Manner::Breaks(40_000)]).await;
    let run = site.run(FETCH).await.ended(0);
    assert_eq!(run.json()["bytes_moved"], SIZE);
    assert_eq!(restored(&site), bytes(SIZE, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_try_left_wrong_is_fetched_anew() {
    let (site, nodes) = site(&[Manner::Good]).await;
    let first = site.run(FETCH).await.ended(0);
    assert_eq!(first.json()["bytes_moved"], SIZE);
    fs::write(site.folder.path().join("to/01/full.xb"), bytes(SIZE, 5)).unwrap();
    fs::create_dir_all(site.folder.path().join("to/.partial/01")).unwrap();
    fs::write(site.folder.path().join("to/.partial/01/full.xb"), bytes(1000, 5)).unwrap();
    site.run(FETCH).await.ended(0);
    assert_eq!(restored(&site), bytes(SIZE, 1));
    assert_eq!(nodes[0].ranges.lock().unwrap().last().unwrap(), &None, "from the beginning in the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_copy_serves_where_the_first_is_wrong_lies_or_is_gone() {
    for bad in [Manner::Wrong, Manner::Climbs] {
        let (site, _) = site(&[bad, Manner::Good]).await;
        let run = site.run(FETCH).await.ended(0);
        assert!(run.err.contains("n0"), "{}", run.err);
        assert_eq!(restored(&site), bytes(SIZE, 1));
        assert!(!site.folder.path().join("to/full.xb").exists());
    }
    let (site, _) = site(&[Manner::Good, Manner::Good]).await;
    site.queue.beat(&beat("n0", Some("http://127.0.0.1:1".to_owned()))).await.unwrap();
    let run = site.run(FETCH).await.ended(0);
    assert!(run.err.contains("n0 at http://127.0.0.1:1"), "{}", run.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_everywhere_is_never_put_under_its_name() {
    let (site, _) = site(&[Manner::Wrong]).await;
    let run = site.run(FETCH).await.ended(1);
    assert!(run.err.contains("digest") && run.err.contains("n0"), "{}", run.err);
    assert!(!site.folder.path().join("to/01/full.xb").exists());
    let other = self::site(&[Manner::Climbs]).await.0;
    other.run(FETCH).await.ended(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_node_is_asked_again_and_a_token_that_is_over_is_renewed() {
    let (site, nodes) = site(&[Manner::Busy(2)]).await;
    site.run(FETCH).await.ended(0);
    assert_eq!(nodes[0].answers.load(Ordering::SeqCst), 3);
    let (other, nodes) = self::site(&[Manner::Refuses(1)]).await;
    other.run(FETCH).await.ended(0);
    assert_eq!(nodes[0].answers.load(Ordering::SeqCst), 2);
    let (refused, _) = self::site(&[Manner::Refuses(100)]).await;
    let run = refused.run(FETCH).await.ended(1);
    assert!(run.err.contains("restore.pub"), "{}", run.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_little_room_is_seen_before_anything_moves() {
    let site = Site::start().await;
    site.write("full.xb", 10, 1);
    let mut job = site.job(KEY, "full.xb");
    job.id = JobId::fresh();
    job.content.as_mut().unwrap().size_bytes = 1 << 60;
    site.index(&[report(job, 1)]).await;
    let run = site.run(FETCH).await.ended(1);
    assert!(run.err.contains("free, and") && run.err.contains("--to"), "{}", run.err);
}
