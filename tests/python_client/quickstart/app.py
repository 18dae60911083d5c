# app.py
import os
from fastapi import FastAPI, HTTPException, Depends
from weir_client import AsyncWeir as Behest

from .auth import require_user  # your app's verified-session dependency

app = FastAPI()

# Reads BEHEST_KEY and BEHEST_BASE_URL from env.
# behest_sk_live_* → apiKey mode. behest_pk_* (tenant PEM) → local-sign mode.
behest = Behest()

@app.post("/api/behest/token")
async def mint_token(user = Depends(require_user)):
    # user.id and user.plan come from YOUR verified session — never from the request body.
    try:
        result = await behest.auth.mint(user_id=user.id, tier=user.plan or 1, ttl=900)
    except Exception as e:
        raise HTTPException(500, str(e))
    return {
        "token": result.token,
        "ttl": result.ttl,
        "sessionId": result.session_id,
        "expiresAt": result.expires_at,
    }
