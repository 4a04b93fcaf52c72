import { describe, expect, test } from '@jest/globals';
import { fromAnswer, isKubeError, KubeError, toKubeError, type KubeErrorKind } from './errors.ts';

const status = (code: number, reason: string, message: string, details: Record<string, unknown> = {}): string =>
  JSON.stringify({ kind: 'Status', apiVersion: 'v1', status: 'Failure', code, reason, message, details });

describe('answers of the API server', () => {
  test.each<[number, KubeErrorKind]>([
    [400, 'Invalid'],
    [401, 'Forbidden'],
    [403, 'Forbidden'],
    [404, 'NotFound'],
    [405, 'Unknown'],
    [408, 'Unavailable'],
    [409, 'Conflict'],
    [410, 'Gone'],
    [415, 'Invalid'],
    [422, 'Invalid'],
    [429, 'TooManyRequests'],
    [500, 'Unavailable'],
    [503, 'Unavailable'],
    [504, 'Unavailable'],
  ])('%d is %s', (code, kind) => {
    expect(fromAnswer(code, '', {}, 'get x').kind).toBe(kind);
    expect(toKubeError({ code, body: status(code, 'R', 'm'), headers: {} }).kind).toBe(kind);
    expect(toKubeError(Object.assign(new Error('watch'), { statusCode: code })).kind).toBe(kind);
  });

  test('a refusal for lack of rights keeps the words of the server, cut', () => {
    const words =
      'deployments.apps "istiod" is forbidden: User "x" cannot get resource "deployments" in API group "apps"';
    const error = fromAnswer(403, status(403, 'Forbidden', words), {}, 'get deployments.apps istio-system/istiod');
    expect(error.message).toBe(`get deployments.apps istio-system/istiod: ${words}`);
    const long = fromAnswer(403, status(403, 'Forbidden', 'z'.repeat(1000)), {}, 'get x');
    expect(long.message).toHaveLength('get x: '.length + 300);
  });

  test.each<[string, object]>([
    [
      'istios.sailoperator.io "a" is forbidden: User "x" cannot get resource "istios" in API group "sailoperator.io" at the cluster scope',
      { verb: 'get', resource: 'istios', group: 'sailoperator.io', user: 'x' },
    ],
    [
      'pods "p" is forbidden: User "x" cannot get resource "pods/log" in API group "" in the namespace "mesh": RBAC: role.rbac.authorization.k8s.io "r" not found',
      { verb: 'get', resource: 'pods/log', group: '', namespace: 'mesh', user: 'x' },
    ],
  ])('a refusal names the missing permission: %s', (words, permission) => {
    expect(fromAnswer(403, status(403, 'Forbidden', words), {}, 'get x').permission).toEqual(permission);
    // an admission plugin forbids what RBAC allows; without a valid token there is no user
    expect(fromAnswer(403, status(403, 'Forbidden', 'exceeded quota'), {}, 'x').permission).toBeUndefined();
    expect(fromAnswer(401, status(401, 'Unauthorized', 'Unauthorized'), {}, 'x').permission).toBeUndefined();
    expect(fromAnswer(404, status(404, 'NotFound', words), {}, 'x').permission).toBeUndefined();
  });

  test('other messages are ours: no body, no value of a field', () => {
    const details = { causes: [{ reason: 'FieldValueInvalid', field: 'spec.x', message: 'Invalid value: "v"' }] };
    const error = fromAnswer(422, status(422, 'Invalid', 'body-dump', details), {}, 'patch x');
    expect(error.message).toBe('patch x: 422 Invalid: spec.x (FieldValueInvalid)');
    expect(error.causes).toEqual([{ reason: 'FieldValueInvalid', field: 'spec.x', message: 'Invalid value: "v"' }]);
    expect(fromAnswer(502, '<html>dump</html>', {}, 'get x').message).toBe('get x: 502 Unavailable');
    expect(fromAnswer(409, status(409, 'AlreadyExists', 'dump'), {}, 'create x')).toMatchObject({
      message: 'create x: 409 AlreadyExists',
      reason: 'AlreadyExists',
      status: 409,
    });
  });

  test('a conflict of field managers names them', () => {
    const details = { causes: [{ reason: 'FieldManagerConflict', field: '.spec.x', message: 'conflict with "helm"' }] };
    expect(fromAnswer(409, status(409, 'Conflict', 'm', details), {}, 'patch x').causes[0]?.message).toContain('helm');
  });

  test('how long to wait comes from the body or the header', () => {
    expect(fromAnswer(429, status(429, 'TooManyRequests', 'm', { retryAfterSeconds: 3 }), {}, 'x').retryAfterMs).toBe(
      3000,
    );
    expect(fromAnswer(503, '', { 'retry-after': '7' }, 'x').retryAfterMs).toBe(7000);
    expect(fromAnswer(503, '', { 'retry-after': 'Wed, 21 Oct' }, 'x').retryAfterMs).toBeUndefined();
    expect(fromAnswer(503, '', { 'retry-after': '99999999' }, 'x').retryAfterMs).toBe(3_600_000);
  });
});

describe('everything else thrown', () => {
  test('failures of the network are Unavailable and say which', () => {
    const refused = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' });
    const error = toKubeError(new TypeError('fetch failed', { cause: refused }), 'get x');
    expect(error).toMatchObject({ kind: 'Unavailable', reason: 'ECONNREFUSED' });
    expect(error.message).toBe('get x: cannot reach the API server (ECONNREFUSED)');
    expect(toKubeError(new TypeError('terminated')).kind).toBe('Unavailable');
    expect(toKubeError(new DOMException('t', 'TimeoutError'))).toMatchObject({
      kind: 'Unavailable',
      reason: 'Timeout',
    });
    expect(toKubeError(new DOMException('a', 'AbortError'))).toMatchObject({ kind: 'Unavailable', reason: 'Aborted' });
  });

  test('the rest is Unknown; ours pass', () => {
    expect(toKubeError(new RangeError('odd')).kind).toBe('Unknown');
    expect(toKubeError('text').kind).toBe('Unknown');
    expect(toKubeError(undefined).kind).toBe('Unknown');
    const ours = new KubeError('m', { kind: 'Gone' });
    expect(toKubeError(ours)).toBe(ours);
    expect([isKubeError(ours), isKubeError(ours, 'Gone'), isKubeError(ours, 'Conflict'), isKubeError(null)]).toEqual([
      true,
      true,
      false,
      false,
    ]);
  });
});
