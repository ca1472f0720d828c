//! Intake: the body of a call, bounded and counted while it comes.
//!
//! Promises: room is taken for a message by its declared length, before more than one frame of it is read; where there
//! is none the call ends with RESOURCE_EXHAUSTED and retry info, and the rest is not read; a call brings one message.
//! Never: holds a byte back, reads a message.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use protocol::{Code, Error, Result, limits};
use tonic::{Status, body::Body};

use super::status;
use crate::service::budget::{Room, Share};

/// Compression flag and length.
const HEAD: usize = 5;

/// The largest message that a method takes.
pub(super) fn most(path: &str) -> usize {
    if share(path).is_some() { limits::MESSAGE_BYTES } else { limits::CONTROL_BYTES }
}

/// The share that a method's messages draw on; `None` where they are too small to count.
pub(super) fn share(path: &str) -> Option<Share> {
    match path {
        "/com.totvs.ingestion.grpc.TableStream/Write" => Some(Share::Writes),
        "/malote.ingestion.v1.Session/Prepare"
        | "/malote.ingestion.v1.Reconcile/Ranges"
        | "/malote.ingestion.v1.Reconcile/Rows"
        | "/malote.fleet.v1.Agent/Report" => Some(Share::Control),
        _ => None,
    }
}

/// A body whose message has room.
pub(super) struct Counted {
    body: Body,
    room: Room,
    share: Share,
    head: [u8; HEAD],
    seen: usize,
    /// Bytes of the message that are still to come.
    left: usize,
}

impl Counted {
    pub(super) fn new(body: Body, room: Room, share: Share) -> Self {
        Self { body, room, share, head: [0; HEAD], seen: 0, left: 0 }
    }

    fn count(&mut self, mut data: &[u8]) -> Result<()> {
        while let Some(slot) = self.head.get_mut(self.seen)
            && let Some((first, rest)) = data.split_first()
        {
            *slot = *first;
            self.seen += 1;
            data = rest;
            if self.seen == HEAD {
                self.begin()?;
            }
        }
        let Some(left) = self.left.checked_sub(data.len()) else {
            return Err(Error::new(Code::InvalidArgument, "a call brings one message"));
        };
        self.left = left;
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        let [packed, length @ ..] = self.head;
        self.left = u32::from_be_bytes(length) as usize;
        if self.left > limits::MESSAGE_BYTES {
            // The codec refuses it by its head.
            return Ok(());
        }
        // A packed Write takes the rest of its room where it is unpacked; the others are never packed by our agent.
        let bytes = match self.share {
            Share::Control if packed != 0 => limits::MESSAGE_BYTES,
            _ => self.left,
        };
        self.room.hold(bytes)
    }
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let data = match &frame {
            Some(Ok(frame)) => frame.data_ref().cloned(),
            _ => None,
        };
        match self.count(&data.unwrap_or_default()) {
            Ok(()) => Poll::Ready(frame),
            Err(error) => Poll::Ready(Some(Err(status::of(error)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
