//! The builder of definitions: data flow by typed handles.
//!
//! A [`Value`] stands for something that will be there when the saga runs: its input or an
//! earlier step's output. There is no other way to get one than from the step that makes it, so
//! an output that no earlier step produced cannot be named. The lifetime `'s` brands values with
//! the definition that they belong to: those of another do not fit.
//!
//! The pivot (Garcia-Molina & Salem 1987; Mehrotra et al. 1992) is the point of no return:
//! before it a step can be undone or says that it needs none; after it steps are only retried.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use potter_core::Json;
use serde::de::DeserializeOwned;

use crate::definition::{Node, NodeKind, Resolver, Typed};
use crate::outcome::StepError;
use crate::step::{Compensate, Step};

/// The input and the outputs so far, by index.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outputs {
    pub(crate) input: Json,
    pub(crate) steps: Vec<Option<Json>>,
}

type Brand<'s> = PhantomData<fn(&'s ()) -> &'s ()>;

/// Something that will be there when the saga runs.
pub struct Value<'s, T> {
    resolve: Resolver<T>,
    brand: Brand<'s>,
}

impl<T> Clone for Value<'_, T> {
    fn clone(&self) -> Self {
        Self { resolve: Arc::clone(&self.resolve), brand: PhantomData }
    }
}

impl<T> fmt::Debug for Value<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value<{}>", std::any::type_name::<T>())
    }
}

impl<'s, T: 'static> Value<'s, T> {
    fn new(resolve: Resolver<T>) -> Self {
        Self { resolve, brand: PhantomData }
    }

    /// The value after `f`, which must be pure: it may be called at every attempt.
    pub fn map<U: 'static>(&self, f: impl Fn(T) -> U + Send + Sync + 'static) -> Value<'s, U> {
        let resolve = Arc::clone(&self.resolve);
        Value::new(Arc::new(move |outputs| resolve(outputs).map(&f)))
    }
}

impl<'s, T: DeserializeOwned + 'static> Value<'s, T> {
    pub(crate) fn input() -> Self {
        Self::new(Arc::new(|outputs| {
            outputs
                .input
                .get()
                .map_err(|error| StepError::park(format!("the saga's input: {error}")))
        }))
    }

    fn output(index: usize, name: &'static str) -> Self {
        Self::new(Arc::new(move |outputs| {
            let json = outputs.steps.get(index).and_then(Option::as_ref);
            let json = json.ok_or_else(|| StepError::park(format!("step {name} has no output")))?;
            json.get()
                .map_err(|error| StepError::park(format!("the output of step {name}: {error}")))
        }))
    }
}

/// What can be a step's input: a value, or a tuple of up to eight.
///
/// ```
/// use potter_saga::{AfterPivot, Flow, Step, Value};
///
/// fn ship<'s, S>(ship: S, flow: &mut Flow<'s, AfterPivot>, order: &Value<'s, u32>, paid: &Value<'s, u64>)
/// where
///     S: Step<Input = (u32, u64, String)>,
/// {
///     let text = order.map(|order| format!("order {order}"));
///     flow.step(ship, (order, paid, &text));
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be the input of a step that takes `{T}`",
    label = "not a `Value` of `{T}`",
    note = "a step's input is one `&value`, or a tuple of two to eight: `(&input, &seat)`; `value.map(…)` changes its type"
)]
pub trait IntoValue<'s, T> {
    /// As one value.
    fn into_value(self) -> Value<'s, T>;
}

impl<'s, T> IntoValue<'s, T> for Value<'s, T> {
    fn into_value(self) -> Value<'s, T> {
        self
    }
}

impl<'s, T> IntoValue<'s, T> for &Value<'s, T> {
    fn into_value(self) -> Value<'s, T> {
        self.clone()
    }
}

macro_rules! tuples {
    ($(($($name:ident),+);)*) => {$(
        impl<'s, $($name: 'static),+> IntoValue<'s, ($($name,)+)> for ($(&Value<'s, $name>,)+) {
            #[allow(non_snake_case, reason = "one name for type and value")]
            fn into_value(self) -> Value<'s, ($($name,)+)> {
                let ($($name,)+) = self;
                $(let $name = Arc::clone(&$name.resolve);)+
                Value::new(Arc::new(move |outputs| Ok(($($name(outputs)?,)+))))
            }
        }
    )*};
}

tuples! {
    (A, B);
    (A, B, C);
    (A, B, C, D);
    (A, B, C, D, E);
    (A, B, C, D, E, F);
    (A, B, C, D, E, F, G);
    (A, B, C, D, E, F, G, H);
}

/// The part of a definition where every step can still be undone.
#[derive(Debug)]
pub struct BeforePivot(());

/// The part where there is no way back.
#[derive(Debug)]
pub struct AfterPivot(());

/// A definition being built.
#[derive(Debug)]
pub struct Flow<'s, Phase> {
    nodes: Vec<Node>,
    brand: Brand<'s>,
    phase: PhantomData<Phase>,
}

/// A definition that is complete.
#[derive(Debug)]
pub struct Finished<'s, T> {
    pub(crate) nodes: Vec<Node>,
    pub(crate) result: Value<'s, T>,
}

impl<'s, Phase> Flow<'s, Phase> {
    pub(crate) fn new() -> Self {
        Self { nodes: Vec::new(), brand: PhantomData, phase: PhantomData }
    }

    fn push<S: Step>(&mut self, typed: Typed<S>, kind: NodeKind) -> Value<'s, S::Output> {
        let index = self.nodes.len();
        self.nodes.push(Node::new(typed, kind));
        Value::output(index, S::NAME)
    }

    /// The definition's end; `result` is what the saga gives when it is completed.
    pub fn finish<T>(self, result: impl IntoValue<'s, T>) -> Finished<'s, T> {
        Finished { nodes: self.nodes, result: result.into_value() }
    }
}

impl<'s> Flow<'s, BeforePivot> {
    /// Adds a step that can be undone.
    pub fn step<S: Compensate>(
        &mut self,
        step: S,
        input: impl IntoValue<'s, S::Input>,
    ) -> Value<'s, S::Output> {
        self.push(Typed::compensable(step, input.into_value().resolve), NodeKind::Compensable)
    }

    /// Adds a step that leaves nothing to undo: it only reads, or its effect does no harm.
    pub fn step_without_undo<S: Step>(
        &mut self,
        step: S,
        input: impl IntoValue<'s, S::Input>,
    ) -> Value<'s, S::Output> {
        self.push(Typed::plain(step, input.into_value().resolve), NodeKind::NoUndo)
    }

    /// Adds the step that decides: if it is done, the saga will be completed. Its own rejection
    /// still compensates; if its outcome stays unknown the saga waits for a hand.
    pub fn pivot<S: Step>(
        mut self,
        step: S,
        input: impl IntoValue<'s, S::Input>,
    ) -> (Value<'s, S::Output>, Flow<'s, AfterPivot>) {
        let value = self.push(Typed::plain(step, input.into_value().resolve), NodeKind::Pivot);
        (value, Flow { nodes: self.nodes, brand: PhantomData, phase: PhantomData })
    }
}

impl<'s> Flow<'s, AfterPivot> {
    /// Adds a step that is only retried. A rejection here makes the saga wait for a hand.
    pub fn step<S: Step>(
        &mut self,
        step: S,
        input: impl IntoValue<'s, S::Input>,
    ) -> Value<'s, S::Output> {
        self.push(Typed::plain(step, input.into_value().resolve), NodeKind::Retriable)
    }
}

pub(crate) fn resolver<T>(value: &Value<'_, T>) -> Resolver<T> {
    Arc::clone(&value.resolve)
}
