// An OpenID provider for test_oidc.py: oidc-provider with all that is asked of it, keys that turn when told to.
//
//   node provider.js NODE_MODULES PORT CLIENT_KEY.json
//
// POST /test/keys?use=2,1 signs with the second key and publishes the first as well. /test/refuse?on=1 answers 503 to
// everything else.
import { createServer } from 'node:http';
import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const [folder, port, clientKey] = process.argv.slice(2);
const { default: Provider } = await import(pathToFileURL(`${folder}/oidc-provider/lib/index.js`));
const issuer = `http://127.0.0.1:${port}`;
const api = 'https://api.example';

const made = new Map();
function keys(number) {
    if (!made.has(number)) {
        const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' });
        const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' });
        made.set(number, [{ ...rsa, kid: `rsa-${number}`, use: 'sig', alg: 'RS256' },
            { ...ec, kid: `ec-${number}`, use: 'sig', alg: 'ES256' }]);
    }
    return made.get(number);
}

const web = ['http://127.0.0.1/back'];
const clients = [
    { client_id: 'service', client_secret: 'a secret: with/odd+characters', grant_types: ['client_credentials'], redirect_uris: [],
        response_types: [], token_endpoint_auth_method: 'client_secret_basic' },
    { client_id: 'poster', client_secret: 'posted secret', grant_types: ['client_credentials'], redirect_uris: [],
        response_types: [], token_endpoint_auth_method: 'client_secret_post' },
    { client_id: 'keyed', jwks: { keys: [JSON.parse(readFileSync(clientKey))] }, grant_types: ['client_credentials'], redirect_uris: [],
        response_types: [], token_endpoint_auth_method: 'private_key_jwt', token_endpoint_auth_signing_alg: 'ES256' },
    { client_id: 'web', token_endpoint_auth_method: 'none', grant_types: ['authorization_code', 'refresh_token'],
        redirect_uris: web, response_types: ['code'], application_type: 'native', id_token_signed_response_alg: 'ES256' },
    { client_id: 'tv', token_endpoint_auth_method: 'none', application_type: 'native', redirect_uris: [], response_types: [],
        grant_types: ['urn:ietf:params:oauth:grant-type:device_code', 'refresh_token'] },
];

function make(order) {
    return new Provider(issuer, {
        clients,
        jwks: { keys: order.flatMap(keys) },
        cookies: { keys: ['of the tests'] },
        scopes: ['openid', 'offline_access', 'read'],
        ttl: { AccessToken: 300, ClientCredentials: 300, IdToken: 300, DeviceCode: 120 },
        pkce: { methods: ['S256'], required: () => true },
        enabledJWA: { clientAuthSigningAlgValues: ['ES256', 'EdDSA', 'RS256'] },
        features: {
            clientCredentials: { enabled: true },
            deviceFlow: { enabled: true },
            introspection: { enabled: true, allowedPolicy: () => true },
            revocation: { enabled: true },
            devInteractions: { enabled: true },
            resourceIndicators: {
                enabled: true,
                defaultResource: () => [],
                useGrantedResource: () => true,
                getResourceServerInfo: () => ({
                    scope: 'read', audience: api, accessTokenFormat: 'jwt', accessTokenTTL: 300, jwt: { sign: { alg: 'RS256' } },
                }),
            },
        },
    });
}

let serve = make([1]).callback();
let refuse = false;
let fetches = 0;
createServer((request, response) => {
    const url = new URL(request.url, issuer);
    if (url.pathname === '/test/keys') serve = make(url.searchParams.get('use').split(',').map(Number)).callback();
    if (url.pathname === '/test/refuse') refuse = url.searchParams.get('on') === '1';
    if (url.pathname.startsWith('/test/')) return response.end(`${fetches}\n`);
    if (url.pathname === '/jwks') fetches += 1;
    if (refuse) return response.writeHead(503).end();
    return serve(request, response);
}).listen(port, '127.0.0.1', () => console.log(`ready ${process.version}`));
