//! Codec of Write: the request stays the bytes that came, so that their hash is over what was sent.
//!
//! Promises: bytes in are bytes out, without a copy, and with room for as many as were unpacked.
//! Never: decodes.

use std::marker::PhantomData;

use bytes::Buf as _;
use prost::{
    Message,
    encoding::{self, DecodeContext, WireType},
};
use protocol::limits;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use super::status;
use crate::service::{budget::Room, ingest};

/// A message in and a message out; fields of the outermost level are counted before any is made, since a few bytes of
/// the wire can become fifty in memory (F64).
#[derive(Debug)]
pub(super) struct SparseCodec<A, Q>(PhantomData<fn() -> (A, Q)>);

impl<A, Q> Default for SparseCodec<A, Q> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

/// The request's half.
#[derive(Debug)]
pub(super) struct SparseDecoder<Q>(PhantomData<fn() -> Q>);

impl<A, Q> Codec for SparseCodec<A, Q>
where
    A: Message + Send + 'static,
    Q: Message + Default + Send + 'static,
{
    type Encode = A;
    type Decode = Q;
    type Encoder = ProstEncoder<A>;
    type Decoder = SparseDecoder<Q>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        SparseDecoder(PhantomData)
    }
}

impl<Q: Message + Default> Decoder for SparseDecoder<Q> {
    type Item = Q;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Q>, Status> {
        let bytes = src.copy_to_bytes(src.remaining());
        let refused = |words| Status::invalid_argument(format!("INVALID_ARGUMENT: {words}"));
        if fields(&bytes).ok_or_else(|| refused("the message does not read"))? > MOST_FIELDS {
            return Err(refused("the message has too many entries"));
        }
        Q::decode(bytes).map(Some).map_err(|_| refused("the message does not read"))
    }
}

/// Entries of a Prepare or a list of ranges, with room to spare.
const MOST_FIELDS: usize = 4 * limits::STREAM_TABLES;

/// How many fields the outermost level has; `None` where they do not read.
fn fields(mut bytes: &[u8]) -> Option<usize> {
    let mut count = 0usize;
    while !bytes.is_empty() {
        let (tag, wire) = encoding::decode_key(&mut bytes).ok()?;
        if matches!(wire, WireType::StartGroup | WireType::EndGroup) {
            // Groups are of a protobuf that nobody here speaks.
            return None;
        }
        encoding::skip_field(wire, tag, &mut bytes, DecodeContext::default()).ok()?;
        count += 1;
    }
    Some(count)
}

/// Raw bytes in, a message out.
#[derive(Debug)]
pub(super) struct RawCodec<T>(Room, PhantomData<fn() -> T>);

impl<T> RawCodec<T> {
    /// For a message that stays in this room.
    pub(super) fn new(room: Room) -> Self {
        Self(room, PhantomData)
    }
}

/// The request's half.
#[derive(Debug)]
pub(super) struct RawDecoder(Room);

/// The answer's half.
#[derive(Debug)]
pub(super) struct ProstEncoder<T>(PhantomData<fn() -> T>);

impl<T: Message + Send + 'static> Codec for RawCodec<T> {
    type Encode = T;
    type Decode = ingest::Message;
    type Encoder = ProstEncoder<T>;
    type Decoder = RawDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        RawDecoder(self.0.clone())
    }
}

impl Decoder for RawDecoder {
    type Item = ingest::Message;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<ingest::Message>, Status> {
        let length = src.remaining();
        self.0.hold(length).map_err(status::of)?;
        Ok(Some(ingest::Message::in_room(src.copy_to_bytes(length), self.0.clone())))
    }
}

impl<T: Message> Encoder for ProstEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(dst).map_err(|_| Status::internal("INTERNAL: the answer does not fit"))
    }
}

#[cfg(test)]
mod tests {
    use protocol::proto::ingestion::{CursorEntry, PrepareRequest};

    use super::*;

    #[test]
    fn f64_fields_are_counted_before_any_is_made() {
        let entry = CursorEntry { table: "t".into(), value: vec![0, 1] };
        let request =
            PrepareRequest { erp: "RM".into(), epoch: 300, batch_id: 9, entries: vec![entry; 7] };
        assert_eq!(fields(&request.encode_to_vec()), Some(10));
        assert_eq!(fields(&[]), Some(0));
        let empty = [0x22, 0].repeat(MOST_FIELDS + 1);
        assert_eq!(fields(&empty), Some(MOST_FIELDS + 1));
        for broken in [&[0x22, 5, 1][..], &[0x23], &[0xff], &[0x25, 1], &[0x08]] {
            assert_eq!(fields(broken), None, "{broken:?}");
        }
    }
}
