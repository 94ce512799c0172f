//! Faults of a simulated system.

use async_trait::async_trait;

use super::{Database, Network};
use crate::error::{Error, ErrorKind, Result};
use crate::nemesis::{Fault, Healed, Injected, Nemesis, Probe};

/// Cuts links (`partition`, to the named nodes, or to all) and crashes the store (`crash`).
#[derive(Clone, Debug)]
pub struct SimNemesis {
    network: Network,
    database: Database,
    nodes: Vec<String>,
}

impl SimNemesis {
    /// For a store with these nodes.
    pub fn new(network: &Network, database: &Database, nodes: Vec<String>) -> Self {
        Self { network: network.clone(), database: database.clone(), nodes }
    }
}

#[async_trait]
impl Nemesis for SimNemesis {
    fn name(&self) -> &str {
        "simulated"
    }

    fn faults(&self) -> Vec<String> {
        vec!["partition".into(), "crash".into()]
    }

    async fn probe(&self) -> Probe {
        Probe::Available
    }

    async fn inject(&self, fault: &Fault) -> Result<Injected> {
        match fault.kind.as_str() {
            "partition" => {
                let targets = if fault.targets.is_empty() { &self.nodes } else { &fault.targets };
                for node in targets {
                    if !self.nodes.contains(node) {
                        let message =
                            format!("there is no node {node}; there are {}", self.nodes.join(", "));
                        return Err(Error::new(ErrorKind::InvalidFault, message));
                    }
                    self.network.cut(node);
                }
                let cut = targets.iter().all(|node| self.network.is_cut(node));
                let detail = format!("no message reaches {}", targets.join(", "));
                Ok(if cut { Injected::verified(detail) } else { Injected::unverified(detail) })
            }
            "crash" => {
                let lost = self.database.crash();
                Ok(Injected::verified(format!("crashed and back; {lost} versions lost")))
            }
            other => {
                let message = format!("there is no fault {other}; there are partition and crash");
                Err(Error::new(ErrorKind::InvalidFault, message))
            }
        }
    }

    async fn heal(&self) -> Result<Healed> {
        self.network.mend();
        Ok(Healed::verified("all links are whole"))
    }
}
