//! The policy on its way through Redis.

use longshore_core::{Policy, policy::POLICY_VERSION, queue::Published};

use crate::cluster::Cluster;

fn policy(version: u64, node: &str) -> Policy {
    let mut policy = Policy { v: POLICY_VERSION, version, ..Policy::default() };
    policy.rules.nodes.insert(node.parse().unwrap(), Default::default());
    policy
}

#[tokio::test]
async fn a_policy_is_never_lowered() {
    let cluster = Cluster::start();
    let queue = &cluster.queue;
    assert_eq!((queue.policy_version().await.unwrap(), queue.policy().await.unwrap()), (None, None));
    for _ in 0..2 {
        assert_eq!(queue.publish_policy(&policy(10, "a")).await.unwrap(), Published::There, "also repeated");
    }
    assert_eq!(queue.publish_policy(&policy(10, "b")).await.unwrap(), Published::Outrun { version: 10 });
    assert_eq!(queue.publish_policy(&policy(9, "b")).await.unwrap(), Published::Outrun { version: 10 });
    assert_eq!(Policy::read(&queue.policy().await.unwrap().unwrap()).unwrap(), policy(10, "a"));
    assert_eq!(queue.publish_policy(&policy(11, "b")).await.unwrap(), Published::There);
    assert_eq!(queue.policy_version().await.unwrap(), Some(11));
}
