//! Malote's own services for senders: Session and Reconcile (`contracts.md` 5.6).
//!
//! Promises: the stream is the caller's tenant and environment, whatever the message says.
//! Never: keeps state.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use runtime::clock::Wall;
use tonic::{Request, body::Body, server::NamedService};

use super::{Answering, codec::SparseCodec, gate, unary, unknown_method};
use crate::service::Services;

/// A service whose methods are one call each: the caller, the request and the time go in, the answer comes out.
macro_rules! service {
    ($(#[$doc:meta])* $name:ident, $full:literal, $room:ident { $($path:literal => $method:ident($($now:expr)?),)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub(super) struct $name {
            services: Services,
        }

        impl $name {
            pub(super) fn new(services: Services) -> Self {
                Self { services }
            }
        }

        impl NamedService for $name {
            const NAME: &'static str = $full;
        }

        impl tower::Service<http::Request<Body>> for $name {
            type Response = http::Response<Body>;
            type Error = Infallible;
            type Future = Answering;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: http::Request<Body>) -> Answering {
                let services = self.services.clone();
                Box::pin(async move {
                    Ok(match request.uri().path().strip_prefix(concat!("/", $full)).unwrap_or_default() {
                        $($path => {
                            let work = move |request: Request<_>| {
                                let services = services.clone();
                                async move {
                                    let caller = gate::caller(request.extensions())?;
                                    services.$room.$method(&caller, request.into_inner() $(, $now)?).await
                                }
                            };
                            unary(SparseCodec::default(), request, work).await
                        })+
                        _ => unknown_method(),
                    })
                })
            }
        }
    };
}

service! {
    /// Who sends a stream, and where it resumes.
    Session, "malote.ingestion.v1.Session", sessions {
        "/Open" => open(Wall::now()),
        "/Renew" => renew(Wall::now()),
        "/Release" => release(Wall::now()),
        "/Prepare" => prepare(Wall::now()),
    }
}

service! {
    /// What is staged, in sums and in keys.
    Reconcile, "malote.ingestion.v1.Reconcile", reconcile {
        "/Ranges" => ranges(),
        "/Rows" => rows(),
    }
}
