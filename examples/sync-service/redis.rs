//! Redis as the [`Companion`]: publish/subscribe for news, strings for the cache.
//!
//! # Invariants
//! - No request waits for Redis longer than `GET_PATIENCE`, and only the first few that meet a dead
//!   or hanging one do: the first that waits in vain *opens the circuit*. From then on nobody asks
//!   until the link, in the background, has an answer again. Writes and messages are never waited for.
//! - The circuit is closed only after both connections have answered, and the subscription is made.
//!   At that moment all waiters of all processes are told to look: what was told while this process
//!   did not hear, or could not tell, is found then.
//! - While it is open, [`is_listening`](Companion::is_listening) is false; when it opens, the waiters of
//!   this process are told, so that they look more often from then on.
//! - Silence is noticed: both connections are asked every `ASK_EVERY`.
//! - Bounded: messages and values that wait are at most `ORDERS_MAX` and `PENDING_BYTES_MAX`; what
//!   is more is dropped and counted. Of a value at most `VALUE_BYTES_MAX` bytes are read, whatever is
//!   there.
//! - The log has one line when the circuit opens and one when it closes; the password is in none.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use potter_core::{Backoff, Error, ErrorKind, Result, jitter};
use redis::aio::{MultiplexedConnection, PubSubSink, PubSubStream};
use redis::{AsyncConnectionConfig, Client};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::companion::Companion;
use crate::protocol::Secret;
use crate::service::News;

/// How long a request waits for a value.
const GET_PATIENCE: Duration = Duration::from_millis(100);
/// How long the link waits for an answer.
const LINK_PATIENCE: Duration = Duration::from_secs(1);
/// How long it may take to connect.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// Between two questions whether it is still there.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// Values are forgotten after so long, seconds.
const LIVE_SECONDS: u64 = 300;
/// Messages and values that wait to be sent.
const ORDERS_MAX: usize = 1_024;
/// Sent at once.
const ORDERS_AT_ONCE: usize = 128;
/// Values that wait to be sent, bytes.
const PENDING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Read of a value, bytes. What is kept is smaller, so what is cut is no hit.
const VALUE_BYTES_MAX: usize = 512 * 1024;
/// Stands for all names.
const ALL: &str = "*";

#[derive(Debug)]
enum Order {
    Tell(String),
    Put(String, Vec<u8>),
}

/// A Redis that the processes on one store share.
#[derive(Debug)]
pub struct Redis {
    news: Arc<News>,
    /// The connection for questions; `None` while the circuit is open.
    circuit: watch::Sender<Option<MultiplexedConnection>>,
    /// Somebody waited in vain.
    tripped: Notify,
    orders: mpsc::Sender<Order>,
    pending_bytes: AtomicUsize,
}

/// Keeps the connections, and sends what is to be sent.
#[derive(Debug)]
pub struct Link {
    redis: Arc<Redis>,
    client: Client,
    address: String,
    channel: String,
    /// Which process says something: nobody listens to itself.
    me: String,
    orders: mpsc::Receiver<Order>,
    first: Option<Session>,
}

/// Two connections that have answered.
struct Session {
    connection: MultiplexedConnection,
    sink: PubSubSink,
    stream: PubSubStream,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session")
    }
}

/// What a driver's error means, without anything of the URL.
fn failed(address: &str, why: &dyn std::fmt::Display) -> Error {
    let message = format!("Redis at {address} can't be reached ({why})");
    Error::new(ErrorKind::Unavailable, message)
}

fn late<T>(
    address: &str,
    done: std::result::Result<redis::RedisResult<T>, impl Sized>,
) -> Result<T> {
    match done {
        Ok(done) => done.map_err(|error| failed(address, &error)),
        Err(_) => Err(failed(address, &"no answer in time")),
    }
}

/// Was it an answer, though none that helps? Then the connection is good.
fn is_answer(error: &redis::RedisError) -> bool {
    use redis::ErrorKind as Driver;
    matches!(error.kind(), Driver::Server(_) | Driver::Extension | Driver::UnexpectedReturnType)
}

impl Redis {
    /// Connects and subscribes. `url` is `redis://user:password@host:6379/0`, or only host and port.
    /// Services whose stores have the same secret hear each other. The link must be run.
    ///
    /// # Errors
    /// `Config` for a URL that is malformed, `Unavailable` when the server does not answer or refuses.
    /// The password is in neither.
    pub async fn connect(url: &str, secret: &Secret) -> Result<(Arc<Self>, Link)> {
        let url = if url.contains("://") { url.to_owned() } else { format!("redis://{url}") };
        if url.starts_with("rediss://") || url.starts_with("valkeys://") {
            let message = "this build has no TLS for Redis: use redis://, over a private network";
            return Err(Error::new(ErrorKind::Config, message));
        }
        let client = Client::open(url).map_err(|_| {
            let message = "the URL is malformed: redis://user:password@host:6379/0";
            Error::new(ErrorKind::Config, message)
        })?;
        let address = client.get_connection_info().addr().to_string();
        let (orders, receiver) = mpsc::channel(ORDERS_MAX);
        let redis = Arc::new(Self {
            news: Arc::default(),
            circuit: watch::Sender::new(None),
            tripped: Notify::new(),
            orders,
            pending_bytes: AtomicUsize::new(0),
        });
        let channel = format!("potter-sync:news:{}", secret.name("channel", &[]));
        let me = uuid::Uuid::new_v4().simple().to_string();
        let mut link = Link {
            redis: Arc::clone(&redis),
            client,
            address,
            channel,
            me,
            orders: receiver,
            first: None,
        };
        link.first = Some(link.open().await?);
        Ok((redis, link))
    }

    fn connection(&self) -> Option<MultiplexedConnection> {
        self.circuit.borrow().clone()
    }

    /// Opens the circuit: nobody asks from now on.
    fn trip(&self) {
        self.circuit.send_replace(None);
        self.tripped.notify_one();
    }

    fn order(&self, order: Order) -> bool {
        let taken = self.orders.try_send(order).is_ok();
        if !taken {
            metrics::counter!("sync_redis_dropped_total").increment(1);
        }
        taken
    }
}

#[async_trait]
impl Companion for Redis {
    fn news(&self) -> &Arc<News> {
        &self.news
    }

    fn is_listening(&self) -> bool {
        self.circuit.borrow().is_some()
    }

    fn tell(&self, name: &str) {
        // While nobody is there, nothing is kept for it: at its return all are told to look.
        if self.is_listening() {
            self.order(Order::Tell(name.to_owned()));
        }
    }

    async fn get(&self, key: &str) -> Option<Vec<u8>> {
        let mut connection = self.connection()?;
        let mut asked = redis::cmd("GETRANGE");
        asked.arg(key).arg(0).arg(VALUE_BYTES_MAX - 1);
        match timeout(GET_PATIENCE, asked.query_async::<Vec<u8>>(&mut connection)).await {
            Ok(Ok(value)) => (!value.is_empty()).then_some(value),
            Ok(Err(error)) if is_answer(&error) => {
                metrics::counter!("sync_redis_errors_total", "what" => "refused").increment(1);
                None
            }
            _ => {
                metrics::counter!("sync_redis_errors_total", "what" => "get").increment(1);
                self.trip();
                None
            }
        }
    }

    fn put(&self, key: String, value: Vec<u8>) {
        let bytes = value.len();
        let room = self.pending_bytes.load(Ordering::Relaxed) + bytes <= PENDING_BYTES_MAX;
        if self.is_listening() && room {
            self.pending_bytes.fetch_add(bytes, Ordering::Relaxed);
            if !self.order(Order::Put(key, value)) {
                self.pending_bytes.fetch_sub(bytes, Ordering::Relaxed);
            }
        }
    }
}

impl Link {
    async fn open(&self) -> Result<Session> {
        let address = &self.address;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_PATIENCE))
            .set_response_timeout(Some(LINK_PATIENCE));
        let connected = self.client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = late(address, timeout(CONNECT_PATIENCE, connected).await)?;
        ask(&mut connection).await.map_err(|why| failed(address, &why))?;
        let subscribed = async {
            let mut pubsub = self.client.get_async_pubsub().await?;
            pubsub.subscribe(&self.channel).await?;
            Ok(pubsub.split())
        };
        let (sink, stream) = late(address, timeout(CONNECT_PATIENCE, subscribed).await)?;
        Ok(Session { connection, sink, stream })
    }

    /// Until it is stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        let pause = Backoff::exponential(Duration::from_millis(500)).cap(Duration::from_secs(10));
        let (mut failures, mut told) = (0_u32, true);
        loop {
            let session = match self.first.take() {
                Some(session) => Ok(session),
                None => self.open().await,
            };
            match session {
                Ok(session) => {
                    if !told {
                        tracing::info!(address = self.address, "Redis answers again");
                    }
                    (failures, told) = (0, false);
                    let Some(why) = self.serve(session, &stop).await else { return };
                    let address = &self.address;
                    tracing::warn!(address, why, "Redis is gone: the service goes on without it");
                }
                Err(error) => tracing::debug!(%error, "Redis is not back yet"),
            }
            failures += 1;
            let wait = pause.delay(failures.min(30), Duration::ZERO, jitter());
            tokio::select! {
                () = tokio::time::sleep(wait.unwrap_or(Duration::from_secs(10))) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Until something fails: what. `None` when it is stopped.
    async fn serve(&mut self, session: Session, stop: &CancellationToken) -> Option<String> {
        let Session { mut connection, mut sink, mut stream } = session;
        self.closes(&connection);
        self.redis.order(Order::Tell(ALL.to_owned()));
        let redis = Arc::clone(&self.redis);
        let mut ask_next = tokio::time::interval(ASK_EVERY);
        let why = loop {
            tokio::select! {
                () = stop.cancelled() => return None,
                () = redis.tripped.notified() => break "no answer in time".to_owned(),
                message = stream.next() => match message {
                    Some(message) => self.heard(message.get_payload_bytes()),
                    None => break "the subscription ended".to_owned(),
                },
                Some(order) = self.orders.recv() => {
                    if let Err(why) = self.send(order, &mut connection).await {
                        break why;
                    }
                }
                _ = ask_next.tick() => {
                    let heard = timeout(LINK_PATIENCE, sink.ping::<redis::Value>());
                    let heard = late(&self.address, heard.await).map_err(|error| error.to_string());
                    if let Err(why) = ask(&mut connection).await.and(heard) {
                        break why;
                    }
                }
            }
        };
        metrics::counter!("sync_redis_errors_total", "what" => "link").increment(1);
        self.opens();
        Some(why)
    }

    /// From now on it is asked, and heard.
    fn closes(&mut self, connection: &MultiplexedConnection) {
        // What waits is from before.
        while let Ok(order) = self.orders.try_recv() {
            self.sent(&order);
        }
        self.redis.circuit.send_replace(Some(connection.clone()));
        metrics::gauge!("sync_redis_up").set(1.0);
        self.redis.news.tell_all();
    }

    fn opens(&self) {
        self.redis.circuit.send_replace(None);
        metrics::gauge!("sync_redis_up").set(0.0);
        self.redis.news.tell_all();
    }

    fn sent(&self, order: &Order) {
        if let Order::Put(_, value) = order {
            self.redis.pending_bytes.fetch_sub(value.len(), Ordering::Relaxed);
        }
    }

    fn heard(&self, message: &[u8]) {
        let Some((from, name)) = std::str::from_utf8(message).ok().and_then(|m| m.split_once(' '))
        else {
            return;
        };
        match name {
            _ if from == self.me => {}
            ALL => self.redis.news.tell_all(),
            name => self.redis.news.tell(name),
        }
    }

    /// Sends this and what else waits, in one go.
    async fn send(
        &mut self,
        first: Order,
        connection: &mut MultiplexedConnection,
    ) -> std::result::Result<(), String> {
        let mut orders = vec![first];
        while let Ok(order) = self.orders.try_recv() {
            orders.push(order);
            if orders.len() == ORDERS_AT_ONCE {
                break;
            }
        }
        let mut pipeline = redis::pipe();
        let mut told: Vec<&str> = Vec::new();
        for order in &orders {
            self.sent(order);
            match order {
                Order::Tell(name) if told.contains(&name.as_str()) => {}
                Order::Tell(name) => {
                    told.push(name);
                    let message = format!("{} {name}", self.me);
                    pipeline.cmd("PUBLISH").arg(&self.channel).arg(message).ignore();
                }
                Order::Put(key, value) => {
                    let set = pipeline.cmd("SET").arg(key).arg(value.as_slice());
                    set.arg("EX").arg(LIVE_SECONDS).ignore();
                }
            }
        }
        match timeout(LINK_PATIENCE, pipeline.query_async::<()>(connection)).await {
            Ok(Ok(())) => Ok(()),
            // It is full, say: the rest was sent all the same.
            Ok(Err(error)) if is_answer(&error) => {
                metrics::counter!("sync_redis_errors_total", "what" => "refused").increment(1);
                Ok(())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }
}

/// Does the connection answer?
async fn ask(connection: &mut MultiplexedConnection) -> std::result::Result<(), String> {
    match timeout(LINK_PATIENCE, redis::cmd("PING").query_async::<redis::Value>(connection)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}
