//! What waits and what is held, for lookers-on.

use futures_util::{StreamExt, TryStreamExt};

use super::{Queue, claim::millis, key, script};
use crate::{JobId, Millis, NodeId, QueueName, ServerId, redis_link::LinkError};

/// Records of leases looked at side by side.
const LOOKS_AT_ONCE: usize = 128;

/// What waits in a level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueDepth {
    /// The level.
    pub queue: QueueName,
    /// Entries of the inbox list, not yet admitted.
    pub inbox: u64,
    /// Admitted and ready.
    pub ready: u64,
    /// Admitted, waiting for a retry's time.
    pub delayed: u64,
    /// Admitted, kept back by operators.
    pub held: u64,
    /// Under lease.
    pub leased: u64,
    /// Bytes of ready, delayed and held jobs.
    pub bytes: u64,
    /// The first admission, by Redis' clock, of two ready ones: of that which is first in its level, and of that which comes to its
    /// waiting limit first. So the oldest, in levels by age or with one limit.
    pub oldest_admitted_at: Option<Millis>,
}

impl QueueDepth {
    /// All that waits: in the inbox, ready, delayed and held.
    pub fn waiting(&self) -> u64 {
        self.inbox + self.ready + self.delayed + self.held
    }
}

/// A lease as a looker-on sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLease {
    /// The job.
    pub job: JobId,
    /// Its level.
    pub queue: QueueName,
    /// Its host.
    pub server_id: ServerId,
    /// Bytes announced.
    pub size_bytes: u64,
    /// The holder.
    pub node_id: NodeId,
    /// The fence.
    pub revision: u64,
    /// Transfers begun, this one included.
    pub attempts: u32,
    /// When it was claimed, by Redis' clock.
    pub claimed_at: Millis,
    /// Good until then without a renewal, by Redis' clock.
    pub expires_at: Millis,
}

impl Queue {
    /// Counts what waits in these levels, in their order. Costs the same however much waits.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn depths(&self, queues: &[QueueName]) -> Result<Vec<QueueDepth>, LinkError> {
        if queues.is_empty() {
            return Ok(Vec::new());
        }
        let mut call = script::DEPTHS.prepare_invoke();
        for queue in queues {
            // Also those of copies, which have no inbox.
            call.arg(queue.as_str());
        }
        let rows: Vec<Vec<String>> = self.run(&call).await?;
        let number = |row: &[String], at: usize| row.get(at).and_then(|text| text.parse::<u64>().ok());
        let depth = |(queue, row): (&QueueName, Vec<String>)| QueueDepth {
            queue: queue.clone(),
            inbox: number(&row, 0).unwrap_or(0),
            ready: number(&row, 1).unwrap_or(0),
            delayed: number(&row, 2).unwrap_or(0),
            leased: number(&row, 3).unwrap_or(0),
            bytes: number(&row, 4).unwrap_or(0),
            held: number(&row, 6).unwrap_or(0),
            oldest_admitted_at: number(&row, 5).map(millis),
        };
        Ok(queues.iter().zip(rows).map(depth).collect())
    }

    /// A node claims from these levels: they are known from now on, also before the first job of theirs.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn know(&self, levels: &[QueueName]) -> Result<(), LinkError> {
        let mut command = redis::cmd("SADD");
        command.arg(key("queues"));
        for level in levels {
            command.arg(self.inbox(level)?);
        }
        self.query(&command).await
    }

    /// Every level that a node ever claimed from, or a job was offered to or admitted from, sorted.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn queue_names(&self) -> Result<Vec<QueueName>, LinkError> {
        let names: Vec<String> = self.query(redis::cmd("SMEMBERS").arg(key("queues"))).await?;
        let mut names: Vec<QueueName> = names.iter().filter_map(|name| name.parse().ok()).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Every lease, the one to expire first at the front.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn leases(&self) -> Result<Vec<HeldLease>, LinkError> {
        let mut command = redis::cmd("ZRANGE");
        command.arg(key("leases")).arg(0).arg(-1).arg("WITHSCORES");
        let expiries: Vec<(String, u64)> = self.query(&command).await?;
        let looks = expiries.into_iter().map(|(id, expires)| self.held_lease(id, expires));
        // Side by side on one connection: a start must not wait once for each lease of the cluster.
        let leases = futures_util::stream::iter(looks).buffered(LOOKS_AT_ONCE).try_collect::<Vec<_>>().await?;
        Ok(leases.into_iter().flatten().collect())
    }

    /// `None` when it ended between the two looks.
    async fn held_lease(&self, id: String, expires: u64) -> Result<Option<HeldLease>, LinkError> {
        let mut command = redis::cmd("HMGET");
        command.arg(key(&format!("job:{id}")));
        command.arg(&["node", "queue", "host", "size", "revision", "attempts", "state"]);
        let fields: Vec<Option<String>> = self.query(&command).await?;
        Ok(held(&id, expires, &fields))
    }
}

fn held(id: &str, expires: u64, fields: &[Option<String>]) -> Option<HeldLease> {
    let field = |at: usize| fields.get(at)?.as_deref();
    if field(6) != Some("leased") {
        return None;
    }
    Some(HeldLease {
        job: id.parse().ok()?,
        queue: field(1)?.parse().ok()?,
        server_id: field(2)?.parse().ok()?,
        size_bytes: field(3)?.parse().ok()?,
        node_id: field(0)?.parse().ok()?,
        revision: field(4)?.parse().ok()?,
        attempts: field(5)?.parse().ok()?,
        claimed_at: millis(field(4)?.parse().ok()?),
        expires_at: millis(expires),
    })
}
