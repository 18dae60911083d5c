/**
 * A Cognito session, held in memory only: a reload signs out, and no script that runs in this
 * origin later finds anything in a cookie or in localStorage.
 */
import type { Config } from "./config";

export interface Session {
  email: string;
  /** An ID token that is good for a while yet; `renew` replaces one that was refused. */
  idToken(how?: { renew: boolean }): Promise<string>;
  signOut(): void;
}

/** The password or the account is not accepted; the message is for the person who typed it. */
export class SignInRefused extends Error {}

/** The user has to sign in again. */
export class SessionEnded extends Error {}

const MARGIN_MS = 60_000;

interface Tokens {
  IdToken: string;
  ExpiresIn: number;
  /** Only sign-in brings one; it stays the same when the ID token is renewed. */
  RefreshToken?: string;
}

export async function signIn(config: Config, email: string, password: string): Promise<Session> {
  const first = await authenticate(config, "USER_PASSWORD_AUTH", {
    USERNAME: email,
    PASSWORD: password,
  });
  const refreshToken = first.RefreshToken ?? "";
  let current = first;
  let renewAt = renewalTime(first);
  let renewing: Promise<string> | undefined;

  async function renew(): Promise<string> {
    try {
      current = await authenticate(config, "REFRESH_TOKEN_AUTH", { REFRESH_TOKEN: refreshToken });
      renewAt = renewalTime(current);
      return current.IdToken;
    } catch (error) {
      // Signed out elsewhere, disabled, or 30 days old.
      if (error instanceof SignInRefused) throw new SessionEnded("Your session has ended.");
      throw error;
    } finally {
      renewing = undefined;
    }
  }

  return {
    email,
    async idToken(how) {
      if (!how?.renew && Date.now() < renewAt) return current.IdToken;
      return (renewing ??= renew()); // callers at the same time share one renewal
    },
    signOut() {
      const revoked = { ClientId: config.cognitoClientId, Token: refreshToken };
      // Nobody waits for it: the tokens are forgotten here in any case.
      call(config, "RevokeToken", revoked).catch(() => undefined);
    },
  };
}

/** By this machine's clock, counted from now: it need not agree with Amazon's. */
function renewalTime(tokens: Tokens): number {
  return Date.now() + tokens.ExpiresIn * 1000 - MARGIN_MS;
}

async function authenticate(
  config: Config,
  flow: "USER_PASSWORD_AUTH" | "REFRESH_TOKEN_AUTH",
  parameters: Record<string, string>,
): Promise<Tokens> {
  const answer = await call<{ AuthenticationResult?: Tokens; ChallengeName?: string }>(
    config,
    "InitiateAuth",
    { ClientId: config.cognitoClientId, AuthFlow: flow, AuthParameters: parameters },
  );
  if (answer.AuthenticationResult) return answer.AuthenticationResult;
  if (answer.ChallengeName === "NEW_PASSWORD_REQUIRED") {
    throw new SignInRefused("This account still has its first, temporary password. Ask for a permanent one.");
  }
  throw new SignInRefused(`This account needs another step to sign in: ${answer.ChallengeName}.`);
}

/** Cognito's API is JSON over POST; these three calls need neither an SDK nor a signature. */
async function call<Answer>(config: Config, action: string, body: object): Promise<Answer> {
  const reply = await fetch(`${config.cognitoEndpoint}/`, {
    method: "POST",
    headers: {
      "Content-Type": "application/x-amz-json-1.1",
      "X-Amz-Target": `AWSCognitoIdentityProviderService.${action}`,
    },
    body: JSON.stringify(body),
  }).catch(() => {
    throw new Error(`The sign-in service at ${config.cognitoEndpoint} cannot be reached. Check the connection and try again.`);
  });
  if (reply.ok) return (await reply.json().catch(() => ({}))) as Answer; // RevokeToken answers nothing
  const told = (await reply.json().catch(() => ({}))) as { __type?: string; message?: string };
  throw refusal(told.__type?.split("#").at(-1) ?? "", told.message ?? `status ${reply.status}`);
}

function refusal(type: string, message: string): Error {
  switch (type) {
    case "NotAuthorizedException": // also for an account that does not exist, on purpose
      return new SignInRefused(
        /attempts exceeded/i.test(message)
          ? "Too many attempts. Wait a few minutes before the next one."
          : "The e-mail address or the password is wrong.",
      );
    case "UserNotConfirmedException":
      return new SignInRefused("This account has not been confirmed yet.");
    case "PasswordResetRequiredException":
      return new SignInRefused("The password of this account has to be reset first.");
    case "TooManyRequestsException":
      return new Error("Too many people are signing in. Try again in a moment.");
    default:
      return new Error(`Signing in failed: ${message}`);
  }
}
