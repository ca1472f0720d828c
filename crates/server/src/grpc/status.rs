//! Status: an error as gRPC carries it.
//!
//! Promises: the message is `CODE: words`; whoever shall wait gets `google.rpc.RetryInfo` and `retry-after`, and only
//! they do, since RESOURCE_EXHAUSTED without it means *too large* (`contracts.md` 5.5).
//! Never: carries a cause.

use std::time::Duration;

use prost::Message;
use prost_types::Any;
use protocol::{Class, Code, Error, GrpcStatus};
use tonic::{Status, metadata::MetadataMap};

/// Where the error does not say how long to wait.
const WAIT: Duration = Duration::from_secs(5);

/// `google.rpc.Status`, the form of `grpc-status-details-bin`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

/// The status of an error; faults go to the log with their cause.
pub(super) fn of(error: Error) -> Status {
    match error.class() {
        Class::Bug => {
            tracing::error!(code = %error.code, cause = error.cause(), "{}", error.message)
        }
        Class::Transient if !matches!(error.code, Code::Draining | Code::RateLimited) => {
            tracing::warn!(code = %error.code, cause = error.cause(), "{}", error.message);
        }
        _ => {}
    }
    let code = tonic::Code::from_i32(match error.code.grpc() {
        // A business outcome has no status of its own: where it cannot travel in errors[] (a service of Malote's)
        // it is a failed precondition.
        GrpcStatus::Ok => GrpcStatus::FailedPrecondition as i32,
        status => status as i32,
    });
    let words = error.to_string();
    match wait(&error) {
        None => Status::new(code, words),
        Some(wait) => {
            let mut metadata = MetadataMap::new();
            let seconds = wait.as_millis().div_ceil(1_000).max(1);
            if let Ok(value) = seconds.to_string().parse() {
                metadata.insert("retry-after", value);
            }
            Status::with_details_and_metadata(
                code,
                words.clone(),
                details(code, words, wait).into(),
                metadata,
            )
        }
    }
}

fn wait(error: &Error) -> Option<Duration> {
    let has_room_later = error.code.grpc() == GrpcStatus::ResourceExhausted
        && matches!(error.code, Code::DiskFull | Code::RateLimited);
    error.retry_after.or(has_room_later.then_some(WAIT))
}

fn details(code: tonic::Code, message: String, wait: Duration) -> Vec<u8> {
    let retry_delay = prost_types::Duration {
        seconds: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
        nanos: wait.subsec_nanos().cast_signed(),
    };
    let info = RetryInfo { retry_delay: Some(retry_delay) };
    let any = Any {
        type_url: "type.googleapis.com/google.rpc.RetryInfo".into(),
        value: info.encode_to_vec(),
    };
    RpcStatus { code: code.into(), message, details: vec![any] }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_who_shall_wait_get_retry_info() {
        let limited =
            of(Error::new(Code::RateLimited, "no room").retry_in(Duration::from_millis(1_500)));
        assert_eq!(limited.code(), tonic::Code::ResourceExhausted);
        assert_eq!(limited.message(), "RATE_LIMITED: no room");
        assert_eq!(limited.metadata().get("retry-after").unwrap(), "2");
        let status = RpcStatus::decode(limited.details()).unwrap();
        let info = RetryInfo::decode(&*status.details[0].value).unwrap();
        assert_eq!(
            info.retry_delay.unwrap(),
            prost_types::Duration { seconds: 1, nanos: 500_000_000 }
        );
        assert!(!of(Error::new(Code::DiskFull, "full")).details().is_empty());
        assert!(of(Error::new(Code::MessageTooLarge, "large")).details().is_empty());
        assert_eq!(of(Error::new(Code::Fenced, "newer")).code(), tonic::Code::FailedPrecondition);
    }
}
