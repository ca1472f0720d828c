"""Verifies a token as a resource server of somebody else's would: discovery, JWKS, claims.

usage: token_checks.py ISSUER TENANT   (the token comes on stdin)
"""

import json
import sys
import urllib.request
import uuid

import jwt

import client
from client import check

CLAIM = "http://www.tnf.com/identity/claims/"


def main():
    issuer, tenant = sys.argv[1:3]
    token = sys.stdin.read().strip()
    with urllib.request.urlopen(f"{issuer}/.well-known/openid-configuration", timeout=10) as answer:
        discovery = json.load(answer)
    check(discovery["issuer"] == issuer, "discovery names the issuer", discovery.get("issuer"))
    key = jwt.PyJWKClient(discovery["jwks_uri"]).get_signing_key_from_jwt(token)
    claims = jwt.decode(token, key.key, algorithms=["RS256"], audience="authorization_api", issuer=issuer)
    header = jwt.get_unverified_header(token)
    check(header["alg"] == "RS256" and header["typ"] == "JWT", "RS256, typ JWT", header)
    check(header["kid"] == key.key_id, "the key is named by kid")
    check(claims["aud"] == ["authorization_api"], "aud is a list", claims["aud"])
    check(claims["scope"] == ["authorization_api"], "scope is a list", claims["scope"])
    check(bool(claims["client_id"]), "client_id is there")
    check(claims[CLAIM + "tenantId"] == str(uuid.UUID(tenant)), "the tenant is a UUID with dashes", claims)
    check(bool(claims[CLAIM + "tenantName"]), "the tenant has a name")
    check("sub" not in claims and "role" not in claims, "claims of user tokens are absent", sorted(claims))
    forged = token[:-8] + ("A" * 8 if token[-8:] != "A" * 8 else "B" * 8)
    try:
        jwt.decode(forged, key.key, algorithms=["RS256"], audience="authorization_api")
    except jwt.InvalidSignatureError:
        check(True, "a forged signature does not verify")
    else:
        check(False, "a forged signature does not verify")


client.run(main)
