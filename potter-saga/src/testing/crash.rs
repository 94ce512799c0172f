//! A crash at every store call of a saga, in turn.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use potter_core::Database;

use super::{CrashPoint, CrashingStore};
use crate::definition::Saga;
use crate::error::{Error, ErrorKind, Result};
use crate::orchestrator::{Orchestrator, OrchestratorBuilder};
use crate::status::SagaStatus;
use crate::store::{SagaRecord, saga_store};

/// Runs a saga again and again, each time in a fresh database, and kills its process at another
/// store call: before the call does anything, and after it committed but before its answer.
/// Then a second process takes over, the saga comes to its end, and your check looks at what is
/// there: one effect a key, nothing lost.
///
/// ```
/// # use async_trait::async_trait;
/// # use potter_core::Database;
/// # use potter_saga::*;
/// use potter_saga::testing::CrashMatrix;
/// # struct Greet;
/// # #[async_trait]
/// # impl Step for Greet {
/// #     const NAME: &'static str = "greet";
/// #     type Input = String;
/// #     type Output = String;
/// #     async fn run(&self, _: &mut StepContext, name: String) -> Result<String, StepError> { Ok(name) }
/// # }
/// # struct Greeting;
/// # impl Saga for Greeting {
/// #     const NAME: &'static str = "greeting";
/// #     const VERSION: u32 = 1;
/// #     type Input = String;
/// #     type Output = String;
/// #     fn define<'s>(&self, name: Value<'s, String>, mut flow: Flow<'s, BeforePivot>) -> Finished<'s, String> {
/// #         let greeted = flow.step_without_undo(Greet, &name);
/// #         flow.finish(greeted)
/// #     }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let report = CrashMatrix::new(|builder| builder.register(&Greeting))
///     .run::<Greeting, _, _, _, _>(
///         &"you".to_owned(),
///         || async { Database::memory() },
///         async |_database, saga| {
///             if saga.status == SagaStatus::Completed { Ok(()) } else { Err(format!("{}", saga.status)) }
///         },
///     )
///     .await?;
/// assert!(report.crashes >= 2 * 2, "start and one step, before and after: {report}");
/// # Ok(())
/// # }
/// ```
pub struct CrashMatrix<B> {
    register: B,
    limit: Duration,
    calls_max: u32,
}

/// What a [`CrashMatrix`] has tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrashReport {
    /// Crashes, each in a run of its own.
    pub crashes: u32,
    /// Store calls of a run without a crash.
    pub calls: u32,
}

impl fmt::Display for CrashReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} crashes over {} store calls", self.crashes, self.calls)
    }
}

impl<B> CrashMatrix<B>
where
    B: Fn(OrchestratorBuilder) -> Result<OrchestratorBuilder>,
{
    /// `register` registers the saga (and sets what else it needs).
    pub fn new(register: B) -> Self {
        Self { register, limit: Duration::from_secs(30), calls_max: 500 }
    }

    /// How long a run may take after its crash (30 s).
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Crashes at every call in turn until a run has no such call. `database` makes a fresh one
    /// with the tables that the steps need; `check` looks at the database and the saga.
    ///
    /// # Errors
    /// `Internal` with the number of the call and what the check said; errors of the database.
    pub async fn run<S, D, DF, C, CF>(
        &self,
        input: &S::Input,
        database: D,
        check: C,
    ) -> Result<CrashReport>
    where
        S: Saga,
        D: Fn() -> DF,
        DF: Future<Output = Database>,
        C: Fn(Database, SagaRecord) -> CF,
        CF: Future<Output = Result<(), String>>,
    {
        let mut report = CrashReport::default();
        for at in 1..=self.calls_max {
            for point in [CrashPoint::Before, CrashPoint::After] {
                let database = database().await;
                let (crashed, saga) = self.one::<S>(input, &database, at, point).await?;
                let place = format!("crash {point:?} call {at}, saga ended {}", saga.status);
                check(database.clone(), saga)
                    .await
                    .map_err(|what| Error::new(ErrorKind::Internal, format!("{place}: {what}")))?;
                database.close().await;
                if !crashed {
                    report.calls = at - 1;
                    return Ok(report);
                }
                report.crashes += 1;
            }
        }
        let message =
            format!("the saga made more than {} store calls: does it end?", self.calls_max);
        Err(Error::new(ErrorKind::Internal, message))
    }

    /// One run; answers whether it came to the crash, and how the saga ended.
    async fn one<S: Saga>(
        &self,
        input: &S::Input,
        database: &Database,
        at: u32,
        point: CrashPoint,
    ) -> Result<(bool, SagaRecord)> {
        const KEY: &str = "crash-matrix";
        let store = saga_store(database);
        store.migrate().await?;
        let crashing = Arc::new(CrashingStore::new(Arc::clone(&store), at, point));
        let first = self.orchestrator(Arc::clone(&crashing) as Arc<_>)?;
        let running = first.spawn().await?;
        let started = first.start::<S>(input).key(KEY).await;
        let ended = async {
            match &started {
                Ok(started) => first.wait(started.id, self.limit).await,
                Err(error) => Err(error.clone()),
            }
        };
        let saga = tokio::select! {
            () = crashing.died() => None,
            ended = ended => ended.ok(),
        };
        running.kill().await;
        if let (Some(saga), false) = (saga, crashing.is_dead()) {
            return Ok((false, saga));
        }
        // The lease of the dead one would run out by itself; the test need not wait for that.
        store.retire(first.node(), false).await?;
        let second = self.orchestrator(store)?;
        let running = second.spawn().await?;
        let started = second.start::<S>(input).key(KEY).await?;
        let saga = second.wait(started.id, self.limit).await;
        running.shutdown().await?;
        Ok((true, saga?))
    }

    fn orchestrator(&self, store: Arc<dyn crate::store::SagaStore>) -> Result<Orchestrator> {
        let builder = Orchestrator::builder(store).poll_interval(Duration::from_millis(5));
        Ok((self.register)(builder)?.build())
    }
}

/// Did the saga end by itself?
impl SagaRecord {
    /// Completed, compensated or cancelled.
    pub fn is_final(&self) -> bool {
        SagaStatus::is_final(self.status)
    }
}
