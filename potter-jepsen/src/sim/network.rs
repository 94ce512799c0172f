//! A network between clients and nodes that is slow, loses messages and can be cut.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Env;
use super::env::lock;

/// Links from clients to nodes. Clones are the same network.
#[derive(Clone, Debug)]
pub struct Network {
    env: Env,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    cut: BTreeSet<String>,
    /// Of 1000 messages.
    lost: u64,
    latency: (Duration, Duration),
}

impl Network {
    /// A network with 1 to 10 ms one way that loses nothing.
    pub fn new(env: &Env) -> Self {
        let latency = (Duration::from_millis(1), Duration::from_millis(10));
        let state = State { cut: BTreeSet::new(), lost: 0, latency };
        Self { env: env.clone(), state: Arc::new(Mutex::new(state)) }
    }

    /// The same, losing so many of 1000 messages, requests and answers alike.
    #[must_use]
    pub fn losing(self, per_mille: u64) -> Self {
        lock(&self.state).lost = per_mille;
        self
    }

    /// Cuts the link to a node, in both directions.
    pub fn cut(&self, node: &str) {
        lock(&self.state).cut.insert(node.to_owned());
    }

    /// Makes all links whole.
    pub fn mend(&self) {
        lock(&self.state).cut.clear();
    }

    /// Whether a message to `node` would be lost for certain.
    pub fn is_cut(&self, node: &str) -> bool {
        lock(&self.state).cut.contains(node)
    }

    /// Sends a request, has the node do `work`, and waits for the answer. If either message is lost
    /// it waits for ever, as a client does: a time limit is the caller's. What arrived is done also
    /// if the caller does not wait any more.
    pub async fn call<T: Send + 'static>(
        &self,
        node: &str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let (network, node) = (self.clone(), node.to_owned());
        let answer = self.env.spawn(async move {
            if !network.travels(&node).await {
                return std::future::pending().await;
            }
            let answer = work.await;
            match network.travels(&node).await {
                true => answer,
                false => std::future::pending().await,
            }
        });
        match answer.await {
            Ok(answer) => answer,
            Err(_) => std::future::pending().await,
        }
    }

    /// One message; whether it arrives.
    async fn travels(&self, node: &str) -> bool {
        let (lost, (low, high)) = {
            let state = lock(&self.state);
            (state.lost, state.latency)
        };
        let lost = self.env.random(|random| random.chance(lost));
        self.env.sleep(self.env.between(low, high)).await;
        !lost && !self.is_cut(node)
    }
}
