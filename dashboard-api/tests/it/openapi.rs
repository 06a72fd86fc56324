use reqwest::Method;

use crate::server::Server;

#[tokio::test]
async fn every_route_is_in_the_document_with_its_methods() {
    let server = Server::start().await;
    let document = server.get("/api/openapi.json").await;
    for (path, methods) in [
        ("/healthz", &["get"][..]),
        ("/metrics", &["get"]),
        ("/api/v1/summary", &["get"]),
        ("/api/v1/backups", &["get"]),
        ("/api/v1/backups/{id}", &["get"]),
        ("/api/v1/statistics", &["get"]),
        ("/api/v1/instances", &["get", "post"]),
        ("/api/v1/instances/{server_id}/{type}/{instance}", &["get", "put", "patch", "delete"]),
        ("/api/v1/instances/{server_id}/{type}/{instance}/chain", &["get"]),
        ("/api/v1/instances/{server_id}/{type}/{instance}/restore-plan", &["get"]),
        ("/api/v1/restores", &["post"]),
        ("/api/v1/nodes", &["get", "post"]),
        ("/api/v1/nodes/{node_id}", &["get", "put", "patch", "delete"]),
        ("/api/v1/queues", &["get"]),
        ("/api/v1/jobs", &["get"]),
        ("/api/v1/jobs/{action}", &["post"]),
        ("/api/v1/dead-letters", &["get"]),
        ("/api/v1/dead-letters/{action}", &["post"]),
        ("/api/v1/why/{job}", &["get"]),
        ("/api/v1/why/{server_id}/{type}/{instance}", &["get"]),
        ("/api/v1/businesses", &["get", "post"]),
        ("/api/v1/businesses/{business_id}", &["get", "put", "patch", "delete"]),
        ("/api/v1/types", &["get", "post"]),
        ("/api/v1/types/{name}", &["get", "put", "patch", "delete"]),
        ("/api/v1/clusters", &["get", "post"]),
        ("/api/v1/clusters/{cluster_id}", &["get", "put", "patch", "delete"]),
        ("/api/v1/policy", &["get"]),
        ("/api/v1/policy/queues", &["get", "post"]),
        ("/api/v1/policy/queues/{queue}", &["get", "put", "patch", "delete"]),
        ("/api/v1/policy/hosts", &["get", "post"]),
        ("/api/v1/policy/hosts/{server_id}", &["get", "put", "patch", "delete"]),
        ("/api/v1/import/{entity}", &["post"]),
    ] {
        for method in methods {
            let operation = &document["paths"][path][method];
            assert!(operation["responses"].is_object(), "{method} {path} is not in the document");
        }
    }
    assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
    // Every reference leads somewhere.
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(document["components"]["schemas"][reference].is_object(), "{reference} is not described");
    }
}

#[tokio::test]
async fn what_is_not_there_and_wrong_methods_are_problems_too() {
    let server = Server::start().await;
    server.problem(server.request(Method::GET, "/api/v1/nothing"), 404).await;
    server.problem(server.request(Method::GET, "/nothing"), 404).await;
    server.problem(server.request(Method::DELETE, "/api/v1/summary"), 405).await;
}
