use serde_json::json;

use super::*;

async fn registry() -> (tempfile::TempDir, Registry) {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::open(&folder.path().join("registry.sqlite")).unwrap();
    registry.import::<Business>("id,business_id,name\n7,31,西游\n8,40,Reef\n".into()).await.unwrap();
    registry.import::<TypeEntry>("[{\"id\":1,\"name\":\"mysql\"},{\"id\":2,\"name\":\"redis\"}]".into()).await.unwrap();
    (folder, registry)
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

#[tokio::test]
async fn a_seed_dump_and_a_seed_api_answer_give_the_same_instances() {
    let (_folder, registry) = registry().await;
    let dump = "id,name,server_id,backup_type_id,business_id,instance\n1,主库,111111,1,7,3306\n";
    let done = registry.import::<InstanceEntry>(dump.into()).await.unwrap();
    assert_eq!(done, Imported { rows: 1, added: 1, changed: 0 });
    let from_dump: Vec<InstanceEntry> = registry.list().await.unwrap();
    assert_eq!(from_dump[0].business_id.as_str(), "31");
    let answer = json!({"objects": [{
        "id": 1, "name": "主库", "server_id": "111111", "instance": 3306, "backup_type_id": 1, "business_id": 7,
        "backup_type": {"id": 1, "name": "mysql"}, "business": {"id": 7, "business_id": 31, "name": "西游"},
    }]});
    let done = registry.import::<InstanceEntry>(answer.to_string()).await.unwrap();
    assert_eq!(done, Imported { rows: 1, added: 0, changed: 0 });
    assert_eq!(registry.list::<InstanceEntry>().await.unwrap(), from_dump);
}

#[tokio::test]
async fn one_wrong_row_stops_the_whole_import_and_names_its_line() {
    let (_folder, registry) = registry().await;
    let before = registry.version().await.unwrap();
    let file =
        "server_id,type,instance,business_id\n1,mysql,3306,31\n../1,mysql,3306,31\n1,oracle,1,31\n1,mysql,2,99\n";
    let error = registry.import::<InstanceEntry>(file.into()).await.unwrap_err();
    let RegistryError::Rows(errors) = error else { panic!("{error}") };
    assert_eq!(errors.rows.iter().map(|row| row.line).collect::<Vec<_>>(), [3, 4, 5]);
    assert!(errors.rows[1].error.contains("oracle"), "{:?}", errors.rows);
    assert!(registry.list::<InstanceEntry>().await.unwrap().is_empty());
    assert_eq!(registry.version().await.unwrap(), before);
}

#[tokio::test]
async fn nodes_of_the_seed_come_in_gigabytes_and_keep_their_number() {
    let (_folder, registry) = registry().await;
    registry.import::<Cluster>("id,name,queue_address,queue_size\n1,华东,10.0.0.9,5\n".into()).await.unwrap();
    registry.import::<NodeEntry>("id,cluster_id,ip,size,used\n5,1,10.0.1.5,4000,1500\n".into()).await.unwrap();
    let node: NodeEntry = registry.get("5".into()).await.unwrap();
    assert_eq!(node.size_bytes, Some(4000 << 30));
    assert_eq!(node.cluster_id.unwrap().as_str(), "1");
    let error =
        registry.import::<NodeEntry>("id,cluster_id,ip,size,used\n6,2,10.0.1.6,1,1\n".into()).await.unwrap_err();
    let RegistryError::Rows(errors) = error else { panic!("{error}") };
    assert!(errors.rows[0].error.contains("cluster 2"), "{:?}", errors.rows);
}

#[tokio::test]
async fn what_is_pointed_at_is_not_removed() {
    let (_folder, registry) = registry().await;
    registry.import::<InstanceEntry>("server_id,type,instance,business_id\n1,mysql,3306,31\n".into()).await.unwrap();
    for error in [
        registry.remove::<Business>("31".into()).await.unwrap_err(),
        registry.remove::<TypeEntry>("mysql".into()).await.unwrap_err(),
    ] {
        assert!(matches!(error, RegistryError::InUse { .. }), "{error}");
    }
    registry.remove::<InstanceEntry>("1/mysql/3306".into()).await.unwrap();
    registry.remove::<Business>("31".into()).await.unwrap();
    assert!(matches!(registry.remove::<Business>("31".into()).await, Err(RegistryError::NotFound { .. })));
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_never_the_key() {
    let (_folder, registry) = registry().await;
    let node = NodeEntry::from_import(
        &import::rows("node_id,weight\nn1,50\n").unwrap()[0],
        &Connection::open_in_memory().unwrap(),
    );
    registry.add(node.clone().unwrap()).await.unwrap();
    assert!(matches!(registry.add(node.unwrap()).await, Err(RegistryError::Taken { .. })));
    let changed: NodeEntry = registry.patch("n1".into(), object(json!({"weight": 0}))).await.unwrap();
    assert_eq!(changed.weight, Some(0));
    let changed: NodeEntry = registry.patch("n1".into(), object(json!({"weight": null}))).await.unwrap();
    assert_eq!(changed.weight, None);
    for bad in [json!({"node_id": "n2"}), json!({"wieght": 3}), json!({"weight": -1}), json!({"cluster_id": "none"})] {
        assert!(registry.patch::<NodeEntry>("n1".into(), object(bad.clone())).await.is_err(), "{bad}");
    }
    let error = registry
        .put(TypeEntry { name: "folder".parse().unwrap(), id: Some(1), copies: None, verify: None })
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::Taken { .. }), "{error}");
}

#[tokio::test]
async fn what_an_earlier_version_kept_of_a_node_is_still_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registry.sqlite");
    let mut before = Connection::open(&file).unwrap();
    schema::MIGRATIONS.to_version(&mut before, 1).unwrap();
    let insert = "INSERT INTO node (node_id, name, weight, bandwidth_bytes_per_second) VALUES ";
    before.execute_batch(&format!("{insert} ('a', '', 7, 40000000), ('b', '', 0, 3), ('c', '', NULL, NULL)")).unwrap();
    drop(before);
    let (version, rules) = Registry::open(&file).unwrap().rules("default".parse().unwrap()).await.unwrap();
    let wanted = json!({
        "a": {"weight": 7, "bandwidth": "40MB/s"}, "b": {"weight": 0, "bandwidth": "1KB/s"}, "c": {},
    });
    assert_eq!((version, serde_json::to_value(rules.nodes).unwrap()), (0, wanted));
}

#[tokio::test]
async fn rules_are_kept_whole_and_imported_from_tables() {
    let (_folder, registry) = registry().await;
    let queues = "queue,max_wait,order,window,urgent,bandwidth,copies,verify\n\
                  level1,2h,deadline,22:00-06:00,true,40MB/s,2,reread\n3306,,,,,,,\n";
    registry.import::<QueueEntry>(queues.into()).await.unwrap();
    let hosts = json!([{"server_id": 7, "transfers": 1, "starts_per_second": 0.5, "modules": {"mysql": 2},
        "bandwidth": "unlimited", "window": "never"}]);
    registry.import::<HostEntry>(hosts.to_string()).await.unwrap();
    let (_, rules) = registry.rules("default".parse().unwrap()).await.unwrap();
    let kept = serde_json::to_value(&rules).unwrap();
    let level1 = json!({"max_wait": "2h", "order": "deadline", "window": "22:00-06:00 UTC", "urgent": true,
        "bandwidth": "40MB/s", "copies": 2, "verify": "reread"});
    assert_eq!(kept["queues"], json!({"level1": level1, "3306": {}}));
    let host = json!({"transfers": 1, "starts_per_second": 0.5, "modules": {"mysql": 2}, "bandwidth": "unlimited",
        "window": "never"});
    assert_eq!(kept["hosts"], json!({"7": host}));
    let wrong = registry.import::<QueueEntry>("queue,copies\na,1\nb,3\n".into()).await.unwrap_err();
    let RegistryError::Rows(errors) = wrong else { panic!("{wrong}") };
    assert!(errors.rows[0].line == 3 && errors.rows[0].error.contains("1 or 2"), "{:?}", errors.rows);
}
