//! Codec of Write: the request stays the bytes that came, so that their hash is over what was sent.
//!
//! Promises: bytes in are bytes out, without a copy, and with room for as many as were unpacked.
//! Never: decodes.

use std::marker::PhantomData;

use bytes::Buf as _;
use prost::Message;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use super::status;
use crate::service::{budget::Room, ingest};

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
