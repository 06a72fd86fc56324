//! The registry and the reporters by command.

use crate::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_imported_and_a_wrong_row_is_named() {
    let site = Site::start().await;
    let write = |name: &str, text: &str| std::fs::write(site.folder.path().join(name), text).unwrap();
    write("business.csv", "id,business_id,name\n7,31,西游\n");
    write("backup_type.csv", "id,name\n1,mysql\n");
    write("backup_instance.csv", "id,name,server_id,backup_type_id,business_id,instance\n1,主库,111111,1,7,3306\n");
    for file in ["business.csv", "backup_type.csv", "backup_instance.csv"] {
        let done = site.run(&["registry", "import", file]).await.ended(0);
        assert!(done.out.contains("1 rows, 1 added, 0 changed"), "{}", done.out);
    }
    write("more.csv", "server_id,type,instance,business_id\n1,mysql,1,31\n1,oracle,1,31\n");
    site.run(&["registry", "import", "more.csv"]).await.ended(64);
    let wrong = site.run(&["registry", "import", "--as", "instances", "more.csv"]).await.ended(64);
    assert!(wrong.err.contains("line 3") && wrong.err.contains("oracle"), "{}", wrong.err);
    let list = site.run(&["registry", "list", "instances"]).await.ended(0);
    assert!(list.out.contains("111111") && list.out.contains("主库") && list.out.lines().count() == 2, "{}", list.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_set_shown_and_removed() {
    let site = Site::start().await;
    site.run(&["registry", "set", "businesses", "business_id=31", "name=西游"]).await.ended(0);
    site.run(&["registry", "set", "types", "name=mysql"]).await.ended(0);
    let add = ["instances", "add", "1/mysql/3306", "--business", "31", "--interval", "1d"];
    site.run(&add).await.ended(0);
    let shown = site.run(&["instances", "show", "1/mysql/3306"]).await.ended(0);
    assert!(shown.out.contains("1d") && shown.out.contains("never"), "{}", shown.out);
    site.run(&add).await.ended(1);
    let nodes = ["registry", "set", "nodes", "node_id=store1"];
    assert!(site.run(&[&nodes[..], &["weight=50"]].concat()).await.ended(0).out.contains("added"));
    assert!(site.run(&[&nodes[..], &["weight=0"]].concat()).await.ended(0).out.contains("changed"));
    site.run(&[&nodes[..], &["weight=many"]].concat()).await.ended(64);
    site.run(&[&nodes[..], &["wieght=1"]].concat()).await.ended(64);
    site.run(&["registry", "set", "nodes", "weight=1"]).await.ended(64);
    site.run(&["registry", "remove", "types", "mysql"]).await.ended(1);
    site.run(&["instances", "remove", "1/mysql/3306"]).await.ended(0);
    site.run(&["registry", "remove", "types", "mysql"]).await.ended(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_levels_and_hosts_are_imported_listed_and_removed() {
    let site = Site::start().await;
    std::fs::write(site.folder.path().join("queues.csv"), "queue,max_wait\nlevel1,2h\n").unwrap();
    site.run(&["registry", "import", "queues.csv"]).await.ended(0);
    site.run(&["hosts", "set", "1", "--transfers", "2"]).await.ended(0);
    for (table, key, wanted) in [("queues", "level1", "2h"), ("hosts", "1", "2")] {
        let list = site.run(&["registry", "list", table]).await.ended(0);
        assert!(list.out.contains(key) && list.out.contains(wanted), "{}", list.out);
        assert_eq!(
            site.run(&["registry", "remove", table, key]).await.ended(0).out,
            format!("{table} {key}: removed\n")
        );
        assert_eq!(site.run(&["registry", "list", table]).await.ended(0).out, format!("no {table} are registered\n"));
        site.run(&["registry", "remove", table, key]).await.ended(1);
    }
    let refused = site.run(&["registry", "set", "queues", "queue=level1", "max_wait=2h"]).await.ended(64);
    assert!(refused.err.contains("businesses") && !refused.err.contains("hosts,"), "{}", refused.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn reporters_post_the_queue_and_the_disk() {
    let site = Site::start().await;
    site.write("a", 10, 1);
    site.queue.offer(&site.job("1/folder/a", "a")).await.unwrap();
    site.run(&["registry", "set", "clusters", "cluster_id=1"]).await.ended(0);
    site.run(&["registry", "set", "nodes", "node_id=5"]).await.ended(0);
    let address = site.redis.address();
    let queue = ["report", "queue", "--cluster", "1", "--redis", &address];
    assert!(site.run(&queue).await.ended(0).out.contains("1 waiting"));
    site.run(&["report", "disk", "--node", "5", "--path", "/"]).await.ended(0);
    let nodes = site.run(&["nodes", "--json"]).await.json();
    assert!(nodes["items"][0]["registered"]["size_bytes"].as_u64().unwrap() > 0, "{nodes}");
    site.run(&["report", "disk", "--node", "6", "--path", "/"]).await.ended(1);
    site.run(&["report", "disk", "--node", "5", "--path", "/none"]).await.ended(64);
    site.run(&["report", "queue", "--cluster", "1", "--redis", "127.0.0.1:1"]).await.ended(69);
}
