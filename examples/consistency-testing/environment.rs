//! The system under test: a private PostgreSQL, or servers that somebody else runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use examples_common::{StartError, env_text};
use potter_core::new_id;
use potter_jepsen::db::{PostgresCluster, PostgresOptions};
use potter_jepsen::nemesis::{
    Composed, Healed, Journal, Nemesis, ProcessInfo, Processes, ProxyNetwork, compose,
};
use potter_jepsen::runner::Node;
use sqlx::Connection as _;

use crate::faults::{CLIENT, Needs};

const PRIMARY: &str = "postgres-primary";
const REPLICA: &str = "postgres-replica";
const REACHED_WITHIN: Duration = Duration::from_secs(5);
const REPLICAS_MAX: usize = 8;
/// Of the primary, where a test wants to fill it; in memory.
const DISK_BYTES: u64 = 1 << 30;
/// How long a process of a test gets for an orderly end.
const PATIENCE: Duration = Duration::from_secs(5);

/// The servers that the settings name.
#[derive(Clone, Default)]
pub(crate) struct External {
    /// The variable, the node's name, the URL.
    servers: Vec<(&'static str, String, String)>,
}

impl External {
    /// Reads the settings, and makes sure that the servers answer.
    ///
    /// # Errors
    /// When one can't be used or reached; the message names the variable and the place.
    pub(crate) async fn from_env() -> Result<Self, StartError> {
        let primary = env_text(&["PRIMARY_DATABASE_URL"]);
        let replicas = env_text(&["REPLICA_DATABASE_URLS"]);
        let Some((variable, url)) = primary else {
            return match replicas {
                None => Ok(Self::default()),
                Some(_) => {
                    Err("REPLICA_DATABASE_URLS is set and PRIMARY_DATABASE_URL is not: the \
                                writes have nowhere to go"
                        .into())
                }
            };
        };
        let mut servers = vec![(variable, PRIMARY.to_owned(), url)];
        if let Some((variable, urls)) = replicas {
            for (number, url) in (1..).zip(urls.split(',').map(str::trim)) {
                let name = if number == 1 { REPLICA.into() } else { format!("{REPLICA}-{number}") };
                servers.push((variable, name, url.to_owned()));
            }
        }
        if servers.len() > 1 + REPLICAS_MAX {
            return Err(format!("REPLICA_DATABASE_URLS: at most {REPLICAS_MAX} replicas").into());
        }
        for (variable, _, url) in &servers {
            let (_, place, _) = parts(url).ok_or_else(|| {
                format!("{variable} can't be used: write postgres://user:password@host:port/name")
            })?;
            let reached = tokio::time::timeout(REACHED_WITHIN, reach(url)).await;
            let reached = reached.unwrap_or_else(|_| Err("it does not answer".into()));
            reached.map_err(|error| format!("{variable}: {place} can't be used: {error}"))?;
        }
        Ok(Self { servers })
    }

    fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }
}

async fn reach(url: &str) -> Result<(), StartError> {
    let mut connection = sqlx::PgConnection::connect(url).await?;
    connection.ping().await?;
    Ok(connection.close().await?)
}

/// A URL up to its place, the place (host:port), and the rest.
fn parts(url: &str) -> Option<(&str, &str, &str)> {
    let scheme = ["postgres://", "postgresql://"].into_iter().find(|s| url.starts_with(s))?;
    let rest = &url[scheme.len()..];
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let begin = rest[..end].rfind('@').map_or(0, |at| at + 1);
    let (place, head) = (&rest[begin..end], &url[..scheme.len() + begin]);
    (!place.is_empty()).then_some((head, place, &rest[end..]))
}

/// The system under test with everything that can be done to it.
pub(crate) struct Environment {
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Arc<ProxyNetwork>,
    pub(crate) processes: Arc<Processes>,
    pub(crate) nemesis: Arc<Composed>,
    cluster: Option<PostgresCluster>,
    made_for: Needs,
}

impl Environment {
    async fn private(journal: &Arc<Journal>, needs: Needs) -> Result<Self, StartError> {
        let directory = std::env::temp_dir().join(format!("potter-consistency-{}", new_id()));
        let mut options = PostgresOptions::default();
        options.clocks = needs == Needs::Clocks;
        options.disk = (needs == Needs::Disk).then_some(DISK_BYTES);
        let cluster = PostgresCluster::new(Arc::clone(journal), directory, options).await?;
        let nodes = match cluster.launch().await {
            Ok(nodes) => nodes,
            Err(error) => {
                cluster.shut_down().await?;
                return Err(error.into());
            }
        };
        Ok(Self {
            nodes,
            network: Arc::clone(cluster.network()),
            processes: Arc::clone(cluster.processes()),
            nemesis: cluster.nemesis()?,
            cluster: Some(cluster),
            made_for: needs,
        })
    }

    async fn external(journal: &Arc<Journal>, external: &External) -> Result<Self, StartError> {
        let network = ProxyNetwork::new(Arc::clone(journal), 0).await?;
        let mut nodes = Vec::new();
        for (variable, name, url) in &external.servers {
            let (head, place, tail) = parts(url).ok_or("no place in the URL")?;
            let with_port =
                if place.contains(':') { place.into() } else { format!("{place}:5432") };
            let mut addresses = tokio::net::lookup_host(&with_port).await?;
            let target: SocketAddr =
                addresses.next().ok_or_else(|| format!("{variable}: {place} has no address"))?;
            let proxy = network.link(CLIENT, name, target).await?;
            nodes.push(Node::new(name, format!("{head}{proxy}{tail}")));
        }
        // No server is among them, but what a test starts is.
        let processes = Arc::new(Processes::new(Arc::clone(journal)));
        let parts: [Arc<dyn Nemesis>; 2] = [Arc::clone(&network) as _, Arc::clone(&processes) as _];
        let nemesis = compose(parts)?;
        let (nemesis, cluster) = (Arc::new(nemesis), None);
        Ok(Self { nodes, network, processes, nemesis, cluster, made_for: Needs::Network })
    }

    /// The servers' names, the primary first.
    pub(crate) fn servers(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.name.clone()).collect()
    }

    /// Whether the program started the servers itself.
    pub(crate) fn is_private(&self) -> bool {
        self.cluster.is_some()
    }

    /// Heals the network alone.
    pub(crate) async fn heal_network(&self) -> potter_jepsen::Result<Healed> {
        self.network.heal().await
    }

    /// Sets the clocks right, and heals nothing else.
    pub(crate) async fn heal_clocks(&self) -> potter_jepsen::Result<Healed> {
        match self.cluster.as_ref().and_then(PostgresCluster::clocks) {
            Some(clocks) => clocks.heal().await,
            None => Ok(Healed::verified("no clock was wrong")),
        }
    }

    /// The registered process that a name means: `postgres` is the primary.
    pub(crate) async fn process(&self, name: &str) -> Result<ProcessInfo, Vec<String>> {
        let wanted = name.trim().to_ascii_lowercase().replace('_', "-");
        let wanted = match wanted.as_str() {
            "postgres" | "postgresql" | "primary" => PRIMARY.to_owned(),
            "replica" => REPLICA.to_owned(),
            _ => wanted,
        };
        self.processes.info(&wanted).await.map_err(|_| self.processes.names())
    }

    async fn end(&self) -> Result<(), StartError> {
        match &self.cluster {
            Some(cluster) => Ok(cluster.shut_down().await?),
            None => {
                for name in self.processes.names() {
                    self.processes.stop(&name, PATIENCE).await?;
                }
                Ok(self.network.heal().await.map(drop)?)
            }
        }
    }
}

/// Makes the environment when it is first needed, and again when it is broken.
pub(crate) struct Environments {
    pub(crate) journal: Arc<Journal>,
    external: External,
    current: tokio::sync::Mutex<Option<Arc<Environment>>>,
}

impl Environments {
    /// Undoes what a killed program left behind.
    ///
    /// # Errors
    /// When the journal can't be kept, or something can't be undone.
    pub(crate) fn open(directory: PathBuf, external: External) -> Result<Self, StartError> {
        let (journal, recovered) = Journal::open(directory)?;
        for undone in recovered.undone {
            tracing::warn!(undone, "left by a program that was killed, and undone now");
        }
        Ok(Self { journal, external, current: tokio::sync::Mutex::default() })
    }

    /// Whether tests run on a server of the program's own.
    pub(crate) fn is_private(&self) -> bool {
        self.external.is_empty()
    }

    /// What there is now, if anything.
    pub(crate) async fn current(&self) -> Option<Arc<Environment>> {
        self.current.lock().await.clone()
    }

    /// An environment in which such a nemesis can work, without faults. Only with `may_replace` one
    /// that is there is given up for it.
    ///
    /// # Errors
    /// When servers can't be started or reached, or don't have what is needed.
    pub(crate) async fn get(
        &self,
        needs: Needs,
        may_replace: bool,
    ) -> Result<Arc<Environment>, StartError> {
        if !self.is_private() && needs != Needs::Network {
            return Err(
                "the servers of PRIMARY_DATABASE_URL are not this program's: it can't kill \
                        them, change their clocks or fill their disks. Unset the variable to test a private server"
                    .into(),
            );
        }
        let mut current = self.current.lock().await;
        if let Some(environment) = current.as_ref() {
            // A disk that can be filled is small: a test that does not fill it might do so by itself.
            let too_small = environment.made_for == Needs::Disk && needs != Needs::Disk;
            if environment.made_for.covers(needs) && !(too_small && may_replace) {
                return Ok(Arc::clone(environment));
            }
            if !may_replace {
                return Err(
                    "the servers that run now were not started for this (their clocks can't \
                            be changed), and a test uses them: ask again when it has ended"
                        .into(),
                );
            }
            environment.end().await?;
            *current = None;
        }
        let environment = if self.is_private() {
            Environment::private(&self.journal, needs).await?
        } else {
            Environment::external(&self.journal, &self.external).await?
        };
        let environment = Arc::new(environment);
        *current = Some(Arc::clone(&environment));
        Ok(environment)
    }

    /// Gives the environment up: the next test begins with another.
    pub(crate) async fn discard(&self) {
        let mut current = self.current.lock().await;
        if let Some(environment) = current.take()
            && let Err(error) = environment.end().await
        {
            tracing::error!(error, "the servers did not stop");
        }
    }

    /// Stops everything and undoes all that is left.
    pub(crate) async fn close(&self) {
        self.discard().await;
        let journal = Arc::clone(&self.journal);
        let undone = tokio::task::spawn_blocking(move || journal.undo_all()).await;
        if let Ok(Err(error)) = undone {
            tracing::error!(%error, "the next start tries again");
        }
    }
}

/// Where the nodes are, without users and passwords.
pub(crate) fn places(nodes: &[Node]) -> BTreeMap<String, String> {
    let place = |url: &str| parts(url).map(|(_, place, _)| place.to_owned()).unwrap_or_default();
    nodes.iter().map(|node| (node.name.clone(), place(&node.url))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_url_is_found_without_its_password() {
        let url = "postgresql://me:p@ss@db.example:5433/shop?sslmode=disable";
        let (head, place, tail) = parts(url).unwrap();
        assert_eq!((place, tail), ("db.example:5433", "/shop?sslmode=disable"));
        assert_eq!(format!("{head}{place}{tail}"), url);
        assert_eq!(parts("postgres://db/x").unwrap().1, "db");
        assert!(parts("mysql://db/x").is_none() && parts("postgres:///x").is_none());
    }
}
