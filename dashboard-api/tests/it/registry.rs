use reqwest::Method;
use serde_json::json;

use crate::server::Server;

#[tokio::test]
async fn an_entry_is_created_read_replaced_changed_and_removed() {
    let server = Server::start().await;
    for (all, key, body, change) in [
        ("businesses", "31", json!({"business_id": "31", "name": "西游"}), json!({"name": "Reef"})),
        ("types", "mysql", json!({"name": "mysql"}), json!({"id": 40})),
        ("clusters", "1", json!({"cluster_id": 1, "name": "east"}), json!({"queue_address": "10.0.0.9"})),
        ("nodes", "n1", json!({"node_id": "n1", "cluster_id": "1"}), json!({"weight": 50})),
        ("policy/queues", "level1", json!({"queue": "level1"}), json!({"max_wait": "2h"})),
        ("policy/hosts", "111111", json!({"server_id": 111111}), json!({"transfers": 1})),
        (
            "instances",
            "111111/mysql/3306",
            json!({"server_id": 111111, "type": "mysql", "instance": 3306, "business_id": 31}),
            json!({"interval_seconds": 7200}),
        ),
    ] {
        let (list, one) = (format!("/api/v1/{all}"), format!("/api/v1/{all}/{key}"));
        server.post(&list, body.clone()).await;
        let again = server.request(Method::POST, &list).json(&body);
        server.problem(again, 409).await;
        let changed = server.json(server.request(Method::PATCH, &one).json(&change), 200).await;
        let (field, value) = change.as_object().unwrap().iter().next().unwrap();
        assert_eq!(&changed[field], value, "{all}");
        server.json(server.request(Method::PUT, &one).json(&body), 200).await;
        let read = server.get(&one).await.to_string();
        assert!(read.contains(key.rsplit('/').next().unwrap()), "{read}");
        assert!(server.get(&list).await["items"].as_array().unwrap().len() == 1, "{all}");
        for wrong in [json!({"unknown": 1}), json!({"name": "line\nbreak"})] {
            server.problem(server.request(Method::PATCH, &one).json(&wrong), 422).await;
        }
        server.problem(server.request(Method::PUT, &format!("{one}x")).json(&body), 422).await;
    }
    server.problem(server.request(Method::DELETE, "/api/v1/types/mysql"), 409).await;
    server.problem(server.request(Method::DELETE, "/api/v1/clusters/1"), 409).await;
    for one in [
        "instances/111111/mysql/3306",
        "policy/queues/level1",
        "policy/hosts/111111",
        "nodes/n1",
        "clusters/1",
        "types/mysql",
        "businesses/31",
    ] {
        let path = format!("/api/v1/{one}");
        let removed = server.request(Method::DELETE, &path).send().await.unwrap();
        // A node is taken out of more than the registry.
        assert_eq!(removed.status().as_u16(), if one == "nodes/n1" { 200 } else { 204 }, "{one}");
        server.problem(server.request(Method::DELETE, &path), 404).await;
    }
}

#[tokio::test]
async fn what_is_not_an_entry_is_refused_and_named() {
    let server = Server::start().await;
    for (path, body, status, wanted) in [
        ("/api/v1/businesses", "{\"business_id\":\"../x\"}", 422, "business_id"),
        ("/api/v1/businesses", "{\"business_id\":\"1\",\"nmae\":\"x\"}", 422, "nmae"),
        ("/api/v1/businesses", "{", 400, "JSON"),
        ("/api/v1/nodes", "{\"node_id\":\"n\",\"weight\":-1}", 422, "weight"),
        ("/api/v1/nodes", "{\"node_id\":\"n\",\"cluster_id\":\"none\"}", 422, "cluster none"),
        (
            "/api/v1/instances",
            "{\"server_id\":\"1\",\"type\":\"oracle\",\"instance\":\"1\",\"business_id\":\"1\"}",
            422,
            "type oracle",
        ),
    ] {
        let problem = server.problem(server.request(Method::POST, path).body(body), status).await;
        assert!(problem["detail"].as_str().unwrap().contains(wanted), "{body}: {problem}");
    }
}

#[tokio::test]
async fn an_import_names_each_wrong_row_and_writes_nothing() {
    let server = Server::start().await;
    let file = "business_id,name\n31,a\n-x,b\n32,c\n,d\n";
    let problem = server.problem(server.request(Method::POST, "/api/v1/import/businesses").body(file), 422).await;
    let lines: Vec<u64> = problem["rows"].as_array().unwrap().iter().map(|row| row["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [3, 5], "{problem}");
    assert!(server.get("/api/v1/businesses").await["items"].as_array().unwrap().is_empty());
    server.problem(server.request(Method::POST, "/api/v1/import/users").body("a"), 404).await;
    let binary = server.request(Method::POST, "/api/v1/import/types").body(vec![0xff, 0xfe]);
    server.problem(binary, 400).await;
    let huge = server.request(Method::POST, "/api/v1/import/types").body(vec![b'x'; 33 << 20]);
    // The server may close before all is sent; where it answers, it is with 413.
    if let Ok(response) = huge.send().await {
        assert_eq!(response.status().as_u16(), 413);
    }
}
