use reqwest::Method;
use serde_json::json;

use crate::server::Server;

#[tokio::test]
async fn nothing_but_health_is_answered_without_the_token() {
    let server = Server::start().await;
    assert_eq!(server.json(server.bare(Method::GET, "/healthz"), 200).await["status"], "ok");
    for (method, path) in [
        (Method::GET, "/api/v1/summary"),
        (Method::GET, "/api/v1/backups"),
        (Method::GET, "/api/openapi.json"),
        (Method::GET, "/metrics"),
        (Method::POST, "/api/v1/restores"),
        (Method::DELETE, "/api/v1/businesses/31"),
        (Method::DELETE, "/api/v1/nodes/5"),
        (Method::GET, "/api/get_backup_list?server_id=1&type=mysql&instance=1"),
        (Method::PATCH, "/api/cluster/1"),
        (Method::POST, "/"),
    ] {
        for request in
            [server.bare(method.clone(), path), server.bare(method.clone(), path).bearer_auth("0".repeat(64))]
        {
            let problem = server.problem(request, 401).await;
            assert_eq!(problem["type"], "urn:longshore:problem:unauthorized", "{path}");
            assert!(!problem.to_string().contains(server.keys.token()));
        }
    }
    let mentions = server.problem(server.bare(Method::GET, "/api/v1/summary"), 401).await;
    assert!(mentions["detail"].as_str().unwrap().contains("data/token"), "{mentions}");
}

#[tokio::test]
async fn the_login_form_gives_a_cookie_that_reads_and_never_writes() {
    let server = Server::start().await;
    let response = server.bare(Method::GET, "/").send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["location"].to_str().unwrap()), (303, "/login"));
    let wrong = server.bare(Method::POST, "/login").form(&[("token", "wrong")]).send().await.unwrap();
    assert_eq!(wrong.status().as_u16(), 401);
    assert!(wrong.headers().get("set-cookie").is_none());
    let right = server.bare(Method::POST, "/login").form(&[("token", server.keys.token())]).send().await.unwrap();
    let cookie = right.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax") && !cookie.contains(server.keys.token()));
    let cookie = cookie.split(';').next().unwrap();
    for path in ["/", "/page/nodes", "/api/v1/summary"] {
        let response = server.bare(Method::GET, path).header("cookie", cookie).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200, "{path}");
    }
    let write = server.bare(Method::POST, "/api/v1/businesses").header("cookie", cookie);
    server.problem(write.json(&json!({"business_id": "31"})), 401).await;
    server.problem(server.bare(Method::DELETE, "/api/v1/nodes/5").header("cookie", cookie), 401).await;
    let forged = server.bare(Method::GET, "/").header("cookie", format!("longshore={}", server.keys.token()));
    assert_eq!(forged.send().await.unwrap().status().as_u16(), 303);
    let fragment = server.bare(Method::GET, "/page/nodes").header("hx-request", "true").send().await.unwrap();
    assert_eq!(fragment.headers()["hx-redirect"], "/login");
}

#[tokio::test]
async fn listed_addresses_reach_the_seeds_endpoints_and_nothing_else_without_a_token() {
    let server = Server::start_with(|settings| settings.legacy_clients = vec!["127.0.0.0/8".parse().unwrap()]).await;
    server.json(server.bare(Method::GET, "/api/cluster"), 200).await;
    server.problem(server.bare(Method::GET, "/api/v1/clusters"), 401).await;
    server.problem(server.bare(Method::GET, "/api/openapi.json"), 401).await;
    let other = Server::start_with(|settings| settings.legacy_clients = vec!["10.0.0.7".parse().unwrap()]).await;
    let problem = other.problem(other.bare(Method::GET, "/api/cluster"), 401).await;
    assert!(problem["detail"].as_str().unwrap().contains("127.0.0.1 in legacy_clients"), "{problem}");
}

#[tokio::test]
async fn pages_carry_a_policy_that_allows_no_inline_script() {
    let server = Server::start().await;
    for path in ["/login", "/assets/htmx.min.js", "/assets/longshore.css"] {
        let response = server.bare(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200, "{path}");
        let policy = response.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    }
    assert_eq!(server.bare(Method::GET, "/assets/none.js").send().await.unwrap().status().as_u16(), 404);
}
