//! Tokens: the claims of `contracts.md` 3.2, signed with RS256 and read back strictly.
//!
//! Promises: a token is taken only when signed by a key of this store with RS256, for this issuer and audience, and
//! not expired by the clock given.
//! Never: follows `jku`, `x5u`, `jwk` or a `crit` of a token, reads a clock.

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, jwk::Jwk};
use protocol::{
    Code, Coded as _, Error, Result,
    ids::{ClientId, TenantId},
    json, limits,
};
use runtime::clock::Wall;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::keys::MasterKey;
use crate::model::access::{ClientRecord, SealedKey};

/// The one audience and scope.
pub(crate) const AUDIENCE: &str = "authorization_api";
/// No honest token is longer: ours have below 1.5 KB.
const TOKEN_BYTES: usize = 8 * 1024;

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: [&'a str; 1],
    iat: i64,
    nbf: i64,
    exp: i64,
    client_id: &'a str,
    scope: [&'a str; 1],
    #[serde(rename = "http://www.tnf.com/identity/claims/tenantId")]
    tenant_id: String,
    #[serde(rename = "http://www.tnf.com/identity/claims/tenantName")]
    tenant_name: &'a str,
}

#[derive(Deserialize)]
struct Received {
    exp: i64,
    client_id: String,
    #[serde(rename = "http://www.tnf.com/identity/claims/tenantId")]
    tenant_id: OneOrMany,
}

/// The claim is seen as a string and as an array of equal strings.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// What a good token says.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) client: ClientId,
    pub(super) tenant: TenantId,
}

pub(super) struct Signer {
    issuer: String,
    /// Signs; the newest.
    kid: String,
    private: EncodingKey,
    /// All keys in force, by `kid`.
    public: HashMap<String, (DecodingKey, Jwk)>,
    validation: Validation,
}

impl Signer {
    pub(super) fn new(master: &MasterKey, keys: &[SealedKey], issuer: String) -> Result<Self> {
        let newest = keys
            .first()
            .ok_or_else(|| Error::new(Code::Internal, "the store has no signing key"))?;
        let broken = "a signing key of the store is damaged";
        let private = |key: &SealedKey| {
            let pem = format!(
                "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
                STANDARD.encode(master.unseal(key)?)
            );
            EncodingKey::from_rsa_pem(pem.as_bytes()).coded(Code::Internal, broken)
        };
        let mut public = HashMap::new();
        for key in keys {
            let mut jwk = Jwk::from_encoding_key(&private(key)?, Algorithm::RS256)
                .coded(Code::Internal, broken)?;
            jwk.common.key_id = Some(key.kid.clone());
            jwk.common.public_key_use = Some(jsonwebtoken::jwk::PublicKeyUse::Signature);
            let decoding = DecodingKey::from_jwk(&jwk).coded(Code::Internal, broken)?;
            public.insert(key.kid.clone(), (decoding, jwk));
        }
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(&[&issuer]);
        validation.set_audience(&[AUDIENCE]);
        // Expiry is judged below against the clock given, without leeway.
        validation.validate_exp = false;
        Ok(Self { issuer, kid: newest.kid.clone(), private: private(newest)?, public, validation })
    }

    /// Whether these are the keys it was made of; the first one signs.
    pub(super) fn has_exactly(&self, keys: &[SealedKey]) -> bool {
        keys.first().is_some_and(|key| key.kid == self.kid)
            && keys.len() == self.public.len()
            && keys.iter().all(|key| self.public.contains_key(&key.kid))
    }

    /// Whether a token names a key in force. Nothing of the token is believed yet.
    pub(super) fn knows_key_of(&self, token: &str) -> bool {
        let header = (token.len() <= TOKEN_BYTES).then(|| jsonwebtoken::decode_header(token).ok());
        let kid = header.flatten().and_then(|header| header.kid);
        kid.is_some_and(|kid| self.public.contains_key(&kid))
    }

    pub(super) fn issue(&self, record: &ClientRecord, now: Wall) -> Result<json::Token> {
        let life = limits::TOKEN_LIFE.as_secs();
        let claims = Claims {
            iss: &self.issuer,
            aud: [AUDIENCE],
            iat: now.seconds(),
            nbf: now.seconds(),
            exp: now.seconds().saturating_add_unsigned(life),
            client_id: record.client.as_str(),
            scope: [AUDIENCE],
            tenant_id: record.tenant.to_string(),
            tenant_name: &record.tenant_name,
        };
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(self.kid.clone());
        let access_token = jsonwebtoken::encode(&header, &claims, &self.private)
            .coded(Code::Internal, "cannot sign a token")?;
        Ok(json::Token {
            access_token,
            expires_in: life,
            token_type: "Bearer".into(),
            scope: AUDIENCE.into(),
        })
    }

    pub(super) fn verify(&self, token: &str, now: Wall) -> Result<Verified> {
        let refused =
            |why: &str| Error::new(Code::Unauthenticated, format!("the token is not valid: {why}"));
        if token.len() > TOKEN_BYTES {
            return Err(refused("too long"));
        }
        let header =
            jsonwebtoken::decode_header(token).map_err(|_| refused("not a signed token"))?;
        let asks_for_more = header.jku.is_some()
            || header.x5u.is_some()
            || header.jwk.is_some()
            || header.crit.is_some();
        if header.alg != Algorithm::RS256 || asks_for_more {
            return Err(refused("its header asks for another key or algorithm"));
        }
        let (key, _) = header
            .kid
            .and_then(|kid| self.public.get(&kid))
            .ok_or_else(|| refused("signed by an unknown key"))?;
        let claims = jsonwebtoken::decode::<Received>(token, key, &self.validation)
            .map_err(|cause| {
                refused("signature, issuer, audience or claims are wrong").because(cause)
            })?
            .claims;
        if claims.exp <= now.seconds() {
            return Err(refused("expired"));
        }
        let client = claims.client_id.parse().map_err(|_| refused("its client id is malformed"))?;
        let tenant = claims.tenant_id.one().ok_or_else(|| refused("its tenant id is malformed"))?;
        Ok(Verified { client, tenant })
    }

    #[cfg(test)]
    pub(super) fn sign(&self, header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &self.private).unwrap()
    }

    pub(super) fn jwks(&self) -> Value {
        json!({ "keys": self.public.values().map(|(_, jwk)| jwk).collect::<Vec<_>>() })
    }
}

impl OneOrMany {
    fn one(&self) -> Option<TenantId> {
        let texts = match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        };
        let (first, rest) = texts.split_first()?;
        let tenant = first.parse().ok()?;
        rest.iter().all(|text| text.parse().ok() == Some(tenant)).then_some(tenant)
    }
}
