//! Bodies: a request that can be sent again without copying, and a reply that drives its call.

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

/// A body of known pieces, shared with the call that may have to send it again.
#[derive(Default)]
pub(crate) struct Pieces(VecDeque<Bytes>);

impl Pieces {
    /// Of these pieces, in order; empty ones are dropped.
    pub(crate) fn of(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        Pieces(pieces.into_iter().filter(|piece| !piece.is_empty()).collect())
    }

    /// Bytes left.
    pub(crate) fn len(&self) -> u64 {
        self.0.iter().map(|piece| piece.len() as u64).sum()
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len())
    }
}

/// Where a driver puts what the client shall see. Producer and consumer are one task: the reply body polls the
/// driver, then takes what it put. So there is no channel, no waker and never more than one item waiting.
pub(crate) struct Outlet<T>(Arc<Mutex<Option<T>>>);

impl<T> Clone for Outlet<T> {
    fn clone(&self) -> Self {
        Outlet(self.0.clone())
    }
}

impl<T> Outlet<T> {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Outlet(Arc::new(Mutex::new(None)))
    }

    /// Puts an item and waits until the client's side has taken it: back-pressure reaches the provider.
    pub(crate) async fn put(&self, item: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(item);
        std::future::poll_fn(|_| if self.is_empty() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Takes what was put.
    pub(crate) fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

/// The rest of a call: finishes when the call is settled. Dropping it cancels the call, which settles it too.
pub(crate) type Driving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A reply: known whole, or driven piece by piece.
pub(crate) enum ReplyBody {
    /// All of it is here.
    Whole(Option<Bytes>),
    /// Its call is still being driven; dropping this cancels the call.
    Driven {
        /// The call.
        driving: Driving,
        /// Where it puts the pieces.
        outlet: Outlet<Out>,
    },
    /// All of it is here, and somebody has to know if it is not handed to the connection.
    Guarded(Bytes, Unsent),
}

/// What is done about a reply that was never handed to its client's connection.
pub(crate) struct Unsent(Option<Box<dyn FnOnce() + Send>>);

impl Unsent {
    /// Does this.
    pub(crate) fn new(act: impl FnOnce() + Send + 'static) -> Self {
        Unsent(Some(Box::new(act)))
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        if let Some(act) = self.0.take() {
            act();
        }
    }
}

impl ReplyBody {
    /// The same, if all of it is here, with something to be done if it is not handed to the connection.
    pub(crate) fn guarded(self, unsent: Unsent) -> Self {
        match self {
            ReplyBody::Whole(Some(bytes)) => ReplyBody::Guarded(bytes, unsent),
            other @ (ReplyBody::Whole(None) | ReplyBody::Driven { .. } | ReplyBody::Guarded(..)) => other,
        }
    }
}

/// What a driver hands to the client's side.
pub(crate) enum Out {
    /// The reply is known whole.
    Whole(http::Response<Bytes>),
    /// A stream begins.
    Head(http::response::Parts),
    /// The stream goes on.
    Data(Bytes),
}

impl From<Bytes> for ReplyBody {
    fn from(bytes: Bytes) -> Self {
        ReplyBody::Whole(Some(bytes))
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let (driving, outlet) = match &mut *self {
            ReplyBody::Guarded(bytes, unsent) => {
                unsent.0 = None;
                let bytes = std::mem::take(bytes);
                *self = ReplyBody::Whole(None);
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            ReplyBody::Whole(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            ReplyBody::Driven { driving, outlet } => (driving, outlet),
        };
        let driven = driving.as_mut().poll(cx);
        match (outlet.take(), driven) {
            (Some(Out::Data(bytes)), Poll::Pending) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            (Some(Out::Data(bytes)), Poll::Ready(())) => {
                *self = ReplyBody::Whole(None);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            // A head is put once, before the body exists.
            (Some(Out::Whole(_) | Out::Head(_)) | None, Poll::Pending) => Poll::Pending,
            (Some(Out::Whole(_) | Out::Head(_)) | None, Poll::Ready(())) => {
                *self = ReplyBody::Whole(None);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, ReplyBody::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ReplyBody::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            ReplyBody::Guarded(bytes, _) => SizeHint::with_exact(bytes.len() as u64),
            ReplyBody::Driven { .. } => SizeHint::default(),
        }
    }
}
