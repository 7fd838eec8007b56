// An OpenID provider that gives tokens to the client `relay`, for so many seconds: node server.js PORT FOLDER SECONDS
// The folder has `server.key` and `server.pem`, and gets the public keys of the tokens: `jwks.json`.
import { generateKeyPairSync } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:https";

import { Provider } from "oidc-provider";

const [port, folder, seconds] = process.argv.slice(2);
const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
const own = { kid: "one", use: "sig", alg: "RS256" };
writeFileSync(`${folder}/jwks.json`, JSON.stringify({ keys: [{ ...publicKey.export({ format: "jwk" }), ...own }] }));

const server = {
  scope: "send",
  audience: "kafka",
  accessTokenFormat: "jwt",
  accessTokenTTL: Number(seconds),
  jwt: { sign: { alg: "RS256" } },
};
const provider = new Provider(`https://127.0.0.1:${port}`, {
  clients: [
    {
      client_id: "relay",
      client_secret: "hidden treasure",
      grant_types: ["client_credentials"],
      redirect_uris: [],
      response_types: [],
    },
  ],
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => "https://kafka.test",
      getResourceServerInfo: () => server,
    },
  },
  jwks: { keys: [{ ...privateKey.export({ format: "jwk" }), ...own }] },
});
provider.on("grant.success", () => console.error("a token is given"));
const files = { key: readFileSync(`${folder}/server.key`), cert: readFileSync(`${folder}/server.pem`) };
createServer(files, provider.callback()).listen(port, "127.0.0.1", () => console.log("ready"));
