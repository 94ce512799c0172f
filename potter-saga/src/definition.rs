//! Definitions: sagas as the engine sees them, with types erased.

use std::collections::HashSet;
use std::fmt;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use potter_core::Json;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};
use crate::flow::{BeforePivot, Finished, Flow, Outputs, Value};
use crate::outcome::{Probe, StepError};
use crate::step::{Compensate, Step, StepContext, StepOptions};

/// The largest output of a step, in bytes of JSON.
const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// A business transaction of several steps.
///
/// A definition must not change once instances of it run: raise [`VERSION`](Self::VERSION) and
/// register the old one beside the new until its last instance is finished. Steps' names and
/// order are checked against what a running instance was started with.
pub trait Saga: Send + Sync + 'static {
    /// Its name in the database, for ever.
    const NAME: &'static str;
    /// Counts from 1.
    const VERSION: u32;
    /// What it is started with.
    type Input: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// What it gives when completed.
    type Output: Serialize + DeserializeOwned + Send + 'static;

    /// The steps and what flows between them.
    fn define<'s>(
        &self,
        input: Value<'s, Self::Input>,
        flow: Flow<'s, BeforePivot>,
    ) -> Finished<'s, Self::Output>;

    /// The time limit of the whole: when it is over before the pivot is done, the saga is
    /// compensated. None by default.
    fn timeout(&self) -> Option<Duration> {
        None
    }
}

pub(crate) type Resolver<T> = Arc<dyn Fn(&Outputs) -> Result<T, StepError> + Send + Sync>;

/// What role a step has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeKind {
    Compensable,
    NoUndo,
    Pivot,
    Retriable,
}

impl NodeKind {
    fn word(self) -> &'static str {
        match self {
            Self::Compensable => "compensable",
            Self::NoUndo => "no undo",
            Self::Pivot => "pivot",
            Self::Retriable => "retriable",
        }
    }
}

/// A step with its place in the data flow.
pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) kind: NodeKind,
    pub(crate) options: StepOptions,
    pub(crate) step: Arc<dyn ErasedStep>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.kind.word())
    }
}

impl Node {
    pub(crate) fn new<S: Step>(typed: Typed<S>, kind: NodeKind) -> Self {
        Self { name: S::NAME, kind, options: typed.step.options(), step: Arc::new(typed) }
    }
}

#[async_trait]
pub(crate) trait ErasedStep: Send + Sync {
    async fn run(&self, cx: &mut StepContext, outputs: &Outputs) -> Result<Json, StepError>;
    async fn probe(
        &self,
        cx: &mut StepContext,
        outputs: &Outputs,
    ) -> Result<Probe<Json>, StepError>;
    async fn undo(
        &self,
        cx: &mut StepContext,
        outputs: &Outputs,
        output: Option<&Json>,
    ) -> Result<(), StepError>;
}

type UndoFn<S> = for<'a> fn(
    &'a S,
    &'a mut StepContext,
    <S as Step>::Input,
    Option<<S as Step>::Output>,
) -> BoxFuture<'a, Result<(), StepError>>;

/// A step with its types.
pub(crate) struct Typed<S: Step> {
    step: S,
    input: Resolver<S::Input>,
    undo: Option<UndoFn<S>>,
}

impl<S: Step> Typed<S> {
    pub(crate) fn plain(step: S, input: Resolver<S::Input>) -> Self {
        Self { step, input, undo: None }
    }
}

impl<S: Compensate> Typed<S> {
    pub(crate) fn compensable(step: S, input: Resolver<S::Input>) -> Self {
        Self { step, input, undo: Some(|step, cx, input, output| step.undo(cx, input, output)) }
    }
}

fn output_json<T: Serialize>(name: &str, output: &T) -> Result<Json, StepError> {
    let json = Json::of(output)
        .map_err(|error| StepError::park_uncertain(format!("the output of {name}: {error}")))?;
    let bytes = json.as_str().len();
    if bytes > OUTPUT_BYTES_MAX {
        return Err(StepError::park_uncertain(format!(
            "the output of {name} has {bytes} bytes; {OUTPUT_BYTES_MAX} at most: store it and pass a reference"
        )));
    }
    Ok(json)
}

#[async_trait]
impl<S: Step> ErasedStep for Typed<S> {
    async fn run(&self, cx: &mut StepContext, outputs: &Outputs) -> Result<Json, StepError> {
        let input = (self.input)(outputs)?;
        let output = self.step.run(cx, input).await?;
        output_json(S::NAME, &output)
    }

    async fn probe(
        &self,
        cx: &mut StepContext,
        outputs: &Outputs,
    ) -> Result<Probe<Json>, StepError> {
        let input = (self.input)(outputs)?;
        Ok(match self.step.probe(cx, input).await? {
            Probe::Done(output) => Probe::Done(output_json(S::NAME, &output)?),
            Probe::NotDone => Probe::NotDone,
            Probe::RunAgain => Probe::RunAgain,
        })
    }

    async fn undo(
        &self,
        cx: &mut StepContext,
        outputs: &Outputs,
        output: Option<&Json>,
    ) -> Result<(), StepError> {
        let Some(undo) = self.undo else { return Ok(()) };
        let input = (self.input)(outputs)?;
        let output = output
            .map(|json| {
                json.get()
                    .map_err(|error| StepError::park(format!("the output of {}: {error}", S::NAME)))
            })
            .transpose()?;
        undo(&self.step, cx, input, output).await
    }
}

/// A saga's definition, ready to run.
pub struct Definition {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    pub(crate) hash: String,
    pub(crate) timeout: Option<Duration>,
    pub(crate) nodes: Vec<Node>,
    result: Resolver<Json>,
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Definition")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("steps", &self.nodes)
            .finish_non_exhaustive()
    }
}

impl Definition {
    /// Builds the definition of `saga`.
    ///
    /// # Errors
    /// `InvalidDefinition` when it has no step, two steps of one name, an empty name, or
    /// version 0.
    pub fn of<S: Saga>(saga: &S) -> Result<Self> {
        let finished = saga.define(Value::input(), Flow::new());
        let result = finished.result.map(|output| Json::of(&output));
        let result = result.map(|json| json.unwrap_or_default());
        let definition = Self {
            name: S::NAME,
            version: S::VERSION,
            hash: hash(&finished.nodes),
            timeout: saga.timeout(),
            nodes: finished.nodes,
            result: crate::flow::resolver(&result),
        };
        definition.validate()?;
        Ok(definition)
    }

    /// The saga's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The saga's version.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The names of the steps, in order.
    pub fn step_names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.nodes.iter().map(|node| node.name)
    }

    /// The steps as a Mermaid flow chart.
    pub fn mermaid(&self) -> String {
        let mut out = String::from("flowchart LR\n");
        for (index, node) in self.nodes.iter().enumerate() {
            let _ = writeln!(out, "    s{index}[\"{} ({})\"]", node.name, node.kind.word());
            if index > 0 {
                let _ = writeln!(out, "    s{} --> s{index}", index - 1);
            }
        }
        out
    }

    /// Where the pivot stands, if there is one.
    pub(crate) fn pivot(&self) -> Option<usize> {
        self.nodes.iter().position(|node| node.kind == NodeKind::Pivot)
    }

    pub(crate) fn result(&self, outputs: &Outputs) -> Option<Json> {
        (self.result)(outputs).ok()
    }

    fn validate(&self) -> Result<()> {
        let mut names = HashSet::new();
        let twice = self.nodes.iter().find(|node| !names.insert(node.name));
        let problem = if self.name.is_empty() || self.nodes.iter().any(|node| node.name.is_empty())
        {
            "a saga and its steps have names".to_owned()
        } else if self.version == 0 {
            "versions count from 1".to_owned()
        } else if self.nodes.is_empty() {
            "it has no step".to_owned()
        } else if let Some(node) = twice {
            format!("two steps are called \"{}\"", node.name)
        } else {
            return Ok(());
        };
        let message = format!("the definition of saga \"{}\" is not valid: {problem}", self.name);
        Err(Error::new(ErrorKind::InvalidDefinition, message))
    }
}

fn hash(nodes: &[Node]) -> String {
    let mut digest = Sha256::new();
    for node in nodes {
        digest.update(node.name.as_bytes());
        digest.update([0]);
        digest.update(node.kind.word().as_bytes());
        digest.update([1]);
    }
    digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
