//! The seed's endpoints, as its reporters and restore scripts call them.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::server::{Server, chain, stored};

async fn seeded() -> Server {
    let server = Server::start_with(|settings| settings.legacy_clients = vec!["127.0.0.1".parse().unwrap()]).await;
    for (entity, file) in [
        ("businesses", "id,business_id,name\n7,31,西游\n"),
        ("types", "id,name\n1,mysql\n"),
        ("clusters", "id,name,queue_address,queue_size\n1,east,10.0.0.9,0\n"),
        ("nodes", "id,cluster_id,ip,size,used\n5,1,10.0.1.5,4000,1500\n"),
        ("instances", "id,name,server_id,backup_type_id,business_id,instance\n1,主库,111111,1,7,3306\n"),
    ] {
        let request = server.request(Method::POST, &format!("/api/v1/import/{entity}")).body(file);
        assert_eq!(server.json(request, 200).await["added"], 1, "{entity}");
    }
    server
}

#[tokio::test]
async fn a_restore_script_finds_the_last_480_newest_first_under_the_seeds_names() {
    let server = seeded().await;
    let mut reports: Vec<_> =
        (0..485).map(|n| stored("111111/mysql/3306", Duration::from_secs(n * 60 + 7200))).collect();
    let increments = chain("111111/mysql/3306", 1);
    reports.extend(increments.clone());
    reports.push(stored("111111/mysql/3307", Duration::from_secs(1)));
    server.index(&reports).await;
    let path = "/api/get_backup_list?server_id=111111&type=mysql&instance=3306";
    let list = server.json(server.bare(Method::GET, path), 200).await;
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 480);
    assert!(list.windows(2).all(|pair| pair[0]["create_time"].as_i64() >= pair[1]["create_time"].as_i64()));
    let newest = &list[0];
    assert_eq!(newest["filename"], increments[1].job.name().unwrap());
    assert_eq!(newest["last_all_filename"], increments[0].job.name().unwrap());
    assert_eq!(newest["last_all_time"], increments[0].job.made_at.0);
    assert_eq!(newest["rsync_time"], increments[1].stored_at.0);
    assert_eq!((&newest["instance"], &newest["game_id"], &newest["succeed"]), (&json!(3306), &json!(31), &json!(1)));
    assert_eq!((&newest["game_name"], &newest["back_server_ip"]), (&json!("西游"), &json!("10.0.1.5")));
    for field in ["server_id", "op_id", "game_server_ip", "file_path", "type", "log", "size"] {
        assert!(!newest[field].is_null(), "{field} in {newest}");
    }
}

#[tokio::test]
async fn the_seeds_reporters_patch_queue_and_disk() {
    let server = seeded().await;
    let queue = server.bare(Method::PATCH, "/api/cluster/1").json(&json!({"queue_size": 42}));
    assert_eq!(server.json(queue, 200).await["queue_size"], 42);
    // The reporter's two values come in no fixed order.
    let disk = server.bare(Method::PATCH, "/api/node/5").json(&json!({"size": 1600, "used": 4000}));
    let node = server.json(disk, 200).await;
    assert_eq!((&node["size"], &node["used"], &node["id"]), (&json!(4000), &json!(1600), &json!(5)));
    let shown = server.get("/api/v1/nodes/5").await;
    assert_eq!(shown["registered"]["used_bytes"], 1600_u64 << 30);
    assert!(shown["registered"]["reported_at"].as_i64().unwrap() > 0);
    let queues = server.get("/api/v1/queues").await;
    let east = queues["clusters"].as_array().unwrap().iter().find(|cluster| cluster["cluster"] == "1").unwrap();
    assert_eq!(east["reported_size"], 42);
    for (path, body, status) in [
        ("/api/cluster/9", json!({"queue_size": 1}), 404),
        ("/api/cluster/1", json!({"queue_size": -1}), 422),
        ("/api/cluster/1", json!({"name": "x"}), 422),
        ("/api/node/5", json!({"weight": 0, "size": 1, "used": 1}), 422),
    ] {
        server.problem(server.bare(Method::PATCH, path).json(&body), status).await;
    }
}

#[tokio::test]
async fn lists_have_the_seeds_form() {
    let server = seeded().await;
    for (name, field, value) in [
        ("cluster", "queue_address", json!("10.0.0.9")),
        ("node", "ip", json!("10.0.1.5")),
        ("backup_type", "name", json!("mysql")),
        ("business", "business_id", json!(31)),
        ("backup_instance", "server_id", json!("111111")),
    ] {
        let list = server.json(server.bare(Method::GET, &format!("/api/{name}")), 200).await;
        assert_eq!(list["num_results"], 1, "{name}");
        assert_eq!(list["objects"][0][field], value, "{name}: {list}");
    }
    let instance = &server.json(server.bare(Method::GET, "/api/backup_instance"), 200).await["objects"][0];
    assert_eq!((&instance["business"]["name"], &instance["backup_type_id"]), (&json!("西游"), &json!(1)));
}
