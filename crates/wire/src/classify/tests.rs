//! Bodies in the providers' own shapes, written here. The recorded corpus is `tests/errors_corpus.rs`.

use super::*;
use proptest::prelude::*;
use std::time::Duration;

const NOW: Wall = Wall(1_772_049_722_000); // 2026-02-25T20:02:02Z

fn classify(status: u16, headers: &[(&str, &'static str)], body: &str) -> FailureReport {
    let header = |name: &str| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    response(status, header, body.as_bytes(), NOW)
}

fn class(status: u16, body: &str) -> &'static str {
    classify(status, &[], body).failure.class()
}

#[track_caller]
fn all(expected: &str, rows: &[(u16, &str)]) {
    for (status, body) in rows {
        assert_eq!(class(*status, body), expected, "{status} {body}");
    }
}

#[test]
fn the_status_decides_when_the_body_says_nothing() {
    for body in ["", "  ", "{}", "[]", "null", "<html>Sorry, you have been blocked: rate limit, api key</html>"] {
        for (status, expected) in [
            (301, "malformed_reply"),
            (400, "invalid_request"),
            (401, "auth"),
            (402, "quota_exhausted"),
            (403, "access_denied"),
            (404, "access_denied"),
            (408, "timeout"),
            (413, "context_exceeded"),
            (422, "invalid_request"),
            (429, "rate_limited"),
            (498, "overloaded"),
            (500, "server_error"),
            (501, "unsupported"),
            (502, "server_error"),
            (503, "overloaded"),
            (504, "timeout"),
            (520, "server_error"),
            (521, "connection"),
            (524, "timeout"),
            (526, "connection"),
            (529, "overloaded"),
            (530, "connection"),
            (599, "timeout"),
        ] {
            assert_eq!(class(status, body), expected, "{status} {body}");
        }
    }
}

#[test]
fn out_of_money_is_told_from_too_fast_at_the_same_status() {
    all(
        "quota_exhausted",
        &[
            (
                429,
                r#"{"error":{"message":"You exceeded your current quota.","type":"insufficient_quota","code":"insufficient_quota"}}"#,
            ),
            (429, r#"{"error":{"message":"x","type":"x","code":"credit_balance_exhausted"}}"#),
            (429, r#"{"error":{"message":"x","code":"project_spend_limit_exceeded"}}"#),
            (
                400,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the API."}}"#,
            ),
            (
                402,
                r#"{"error":{"message":"Insufficient Balance","type":"unknown_error","param":null,"code":"invalid_request_error"}}"#,
            ),
            (
                403,
                r#"{"error":{"code":"403","message":"Out of call volume quota. Quota will be replenished in 3.12 days."}}"#,
            ),
            (403, r#"{"error":{"message":"Key limit exceeded (total limit)","code":403}}"#),
            (403, r#"{"code":"permission-denied","error":"Your newly created teams doesn't have any credits yet."}"#),
            (429, r#"{"message":"You are using a Trial key, which is limited to 1000 API calls / month."}"#),
            (429, r#"{"message":"Too many tokens per day, please wait before trying again."}"#),
            (
                429,
                r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"q","details":[{"violations":[{"quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]},{"retryDelay":"37s"}]}}"#,
            ),
        ],
    );
    all(
        "rate_limited",
        &[
            (
                429,
                r#"{"error":{"message":"Rate limit reached for m on requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in 7m12s.","type":"requests","code":"rate_limit_exceeded"}}"#,
            ),
            (
                429,
                r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"You exceeded your current quota, please check your plan and billing details.","details":[{"violations":[{"quotaId":"GenerateRequestsPerMinutePerProjectPerModel"}]},{"retryDelay":"34.4s"}]}}"#,
            ),
            (
                429,
                r#"{"error":{"code":"429","message":"Requests have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 12 seconds. Please go here: https://aka.ms/oai/quotaincrease"}}"#,
            ),
            (429, r#"{"message":"You are using a Trial key, which is limited to 10 API calls / minute."}"#),
            (429, r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#),
            (
                200,
                r#"{"error":{"code":429,"message":"Provider returned error","metadata":{"raw":"m is temporarily rate-limited upstream"}}}"#,
            ),
            (500, r#"{"error":{"code":429,"message":"upstream said so"}}"#),
        ],
    );
}

#[test]
fn what_can_never_fit_is_no_schedule() {
    all(
        "context_exceeded",
        &[
            (
                429,
                r#"{"error":{"message":"Request too large for gpt in organization o on tokens per min (TPM): Limit 30000, Requested 34307. The input or output tokens must be reduced.","type":"tokens","code":"rate_limit_exceeded"}}"#,
            ),
            (
                413,
                r#"{"error":{"message":"Request too large for model `m` on tokens per minute (TPM)","type":"tokens","code":"rate_limit_exceeded"}}"#,
            ),
            (
                400,
                r#"{"object":"error","message":"This model's maximum context length is 4096 tokens.","type":"BadRequestError","param":null,"code":400}"#,
            ),
            (
                400,
                r#"{"error":{"code":400,"status":"INVALID_ARGUMENT","message":"The input token count (1200000) exceeds the maximum number of tokens allowed (1048575)."}}"#,
            ),
            (
                400,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"input length and `max_tokens` exceed context limit: 199000 + 8192 > 200000"}}"#,
            ),
            (400, r#"{"message":"Input is too long for requested model."}"#),
            (
                422,
                r#"{"error":"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000","error_type":"validation"}"#,
            ),
            (
                400,
                r#"{"code":"x y","error":"This model's maximum prompt length is 131072 but the request contains 537812 tokens."}"#,
            ),
            (
                500,
                r#"{"error":{"code":500,"message":"input is too large to process. increase the physical batch size","type":"server_error"}}"#,
            ),
            (
                400,
                r#"{"error":{"code":400,"message":"Provider returned error","metadata":{"raw":"{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":\"prompt is too long: 3 tokens > 2 maximum\"}}"}}}"#,
            ),
        ],
    );
}

#[test]
fn a_bad_key_is_found_at_any_status() {
    all(
        "auth",
        &[
            (
                400,
                r#"[{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}]"#,
            ),
            (400, r#"{"code":"Client specified an invalid argument","error":"Incorrect API key provided: xa***."}"#),
            (
                403,
                r#"{"error":{"code":403,"message":"Your API key was reported as leaked.","status":"PERMISSION_DENIED"}}"#,
            ),
            (
                403,
                r#"{"message":"The security token included in the request is expired","__type":"ExpiredTokenException"}"#,
            ),
            (401, r#"{"detail":"Invalid API Key"}"#),
            (401, r#"{"message":"Unauthorized","request_id":"x"}"#),
            (
                400,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"This organization has been disabled."}}"#,
            ),
            (200, r#"{"error":{"code":401,"message":"User not found."}}"#),
        ],
    );
}

#[test]
fn a_model_that_is_not_there_is_not_the_clients_fault_alone() {
    all(
        "access_denied",
        &[
            (
                400,
                r#"{"error":{"message":"The requested model 'm' does not exist.","type":"invalid_request_error","param":"model","code":"model_not_found"}}"#,
            ),
            (
                400,
                r#"{"object":"error","message":"Invalid model: m","type":"invalid_model","param":null,"code":"1500"}"#,
            ),
            (
                400,
                r#"{"error":{"message":"Model Not Exist","type":"invalid_request_error","code":"invalid_request_error"}}"#,
            ),
            (400, r#"{"error":{"message":"a/b is not a valid model ID","code":400}}"#),
            (404, r#"{"error":"model 'x' not found"}"#),
            (404, r#"{"error":{"message":"No endpoints found matching your data policy","code":404}}"#),
            (403, r#"{"error":{"message":"Project `p` does not have access to model `m`","code":"model_not_found"}}"#),
            (
                400,
                r#"{"error":{"code":400,"message":"User location is not supported for the API use.","status":"FAILED_PRECONDITION"}}"#,
            ),
            (403, r#"{"message":"User: arn:aws:iam::1:user/u is not authorized to perform: bedrock:InvokeModel"}"#),
            (404, "404 page not found"),
        ],
    );
    all(
        "invalid_request",
        &[
            (400, r#"{"error":{"message":"This model does not support effort level 'x'."}}"#),
            (400, r#"{"message":"This model doesn't support the video content block that you provided."}"#),
            (
                400,
                r#"{"error":{"message":"Web search options not supported with this model.","param":"web_search_options"}}"#,
            ),
            (
                404,
                r#"{"error":{"message":"Item with id 'rs_1' not found.","type":"invalid_request_error","param":"input","code":null}}"#,
            ),
            (
                400,
                r#"{"error":{"message":"max_tokens is too large: 100000. This model supports at most 16384 completion tokens","code":"invalid_value"}}"#,
            ),
        ],
    );
}

#[test]
fn tools_a_target_cannot_take_are_told_from_a_broken_tool_history() {
    all(
        "tool_mismatch",
        &[
            (500, r#"{"error":{"code":500,"message":"tools param requires --jinja flag","type":"server_error"}}"#),
            (400, r#"{"error":"registry.ollama.ai/library/x does not support tools"}"#),
            (404, r#"{"error":{"message":"No endpoints found that support tool use.","code":404}}"#),
            (400, r#"{"message":"This model doesn't support tool use in streaming mode."}"#),
            (
                400,
                r#"{"error":{"code":400,"message":"Function calling is not enabled for models/gemma","status":"INVALID_ARGUMENT"}}"#,
            ),
            (
                400,
                r#"{"error":{"message":"Invalid schema for function 'f': x","param":"tools[0].function.parameters","code":"invalid_function_parameters"}}"#,
            ),
            (
                400,
                r#"{"error":{"code":"tool_use_failed","failed_generation":"maybe","message":"Failed to call a function.","type":"invalid_request_error"}}"#,
            ),
            (
                400,
                r#"{"error":{"code":400,"message":"* GenerateContentRequest.tools[0].function_declarations[0].name: Invalid function name.","status":"INVALID_ARGUMENT"}}"#,
            ),
        ],
    );
    all(
        "invalid_request",
        &[
            (
                400,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"messages.0.content.1: unexpected `tool_use_id` found in `tool_result` blocks"}}"#,
            ),
            (
                400,
                r#"{"error":{"message":"Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.","param":"messages.[2].role"}}"#,
            ),
            (
                400,
                r#"{"error":{"code":400,"message":"Please ensure that function call turn comes immediately after a user turn","status":"INVALID_ARGUMENT"}}"#,
            ),
        ],
    );
}

#[test]
fn a_safety_block_is_found_at_any_status() {
    all(
        "safety_block",
        &[
            (
                400,
                r#"{"error":{"message":"The response was filtered due to the prompt triggering Azure OpenAI's content management policy.","code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
            ),
            (
                400,
                r#"{"error":{"message":"Invalid prompt: your prompt was flagged as potentially violating our usage policy.","code":"invalid_prompt"}}"#,
            ),
            (400, r#"{"error":{"message":"Content Exists Risk","type":"invalid_request_error"}}"#),
            (
                400,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"Output blocked by content filtering policy"}}"#,
            ),
            (
                403,
                r#"{"error":{"code":403,"message":"Your input was flagged. No credits were charged.","metadata":{"reasons":["violence"],"flagged_input":"...","provider_name":"x"}}}"#,
            ),
            (403, r#"{"code":"x","error":"Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_CSAM"}"#),
        ],
    );
}

#[test]
fn errors_inside_a_success_are_told_from_replies_that_are_none() {
    for (body, expected) in [
        (r#"{"error":{"code":502,"message":"Provider returned error"},"user_id":"u"}"#, "server_error"),
        (r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#, "overloaded"),
        (r#"{"error":"model is loading"}"#, "server_error"),
        ("<html></html>", "malformed_reply"),
        ("upstream connect error", "malformed_reply"),
        ("[1,2]", "malformed_reply"),
        ("", "empty"),
    ] {
        assert_eq!(class(200, body), expected, "{body}");
    }
    for (payload, expected) in [
        (r#"{"type":"error","error":{"details":null,"type":"overloaded_error","message":"Overloaded"}}"#, "overloaded"),
        (
            r#"{"error":{"message":"EngineCore encountered an issue.","type":"InternalServerError","code":500}}"#,
            "server_error",
        ),
        (
            r#"{"error":{"code":"server_error","message":"Provider disconnected unexpectedly"},"choices":[{"finish_reason":"error"}]}"#,
            "server_error",
        ),
        (
            r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"server_is_overloaded","message":"At capacity."}}}"#,
            "overloaded",
        ),
        (
            r#"{"error":{"message":"Tool call validation failed","type":"invalid_request_error","code":"tool_use_failed"}}"#,
            "tool_mismatch",
        ),
        ("Server is overloaded", "overloaded"),
        ("", "server_error"),
    ] {
        assert_eq!(in_band(payload.as_bytes()).failure.class(), expected, "{payload}");
    }
    let report = in_band(
        br#"{"error":{"code":"rate_limit_exceeded","message":"Rate limit reached. Please try again in 11.054s."}}"#,
    );
    assert_eq!((report.failure, report.retry_after), (Failure::RateLimited, Some(Duration::from_millis(11_054))));
}

#[test]
fn every_spelling_of_retry_after_is_understood_and_none_is_trusted_for_ever() {
    let rate = r#"{"error":{"message":"slow"}}"#;
    let day = [
        ("anthropic-ratelimit-requests-remaining", "0"),
        ("anthropic-ratelimit-requests-reset", "2026-02-25T20:02:32Z"),
    ];
    let ms = Duration::from_millis;
    type Case<'a> = (&'a [(&'a str, &'static str)], &'a str, Option<Duration>);
    let cases: &[Case<'_>] = &[
        (&[("retry-after", "31")], rate, Some(ms(31_000))),
        (&[("retry-after", "1.5")], rate, Some(ms(1500))),
        (&[("retry-after", "Wed, 25 Feb 2026 20:02:12 GMT")], rate, Some(ms(10_000))),
        (&[("retry-after", "Wed, 25 Feb 2026 19:02:12 GMT")], rate, Some(ms(0))),
        (&[("retry-after", "2"), ("retry-after-ms", "1146")], rate, Some(ms(1146))),
        (&[("retry-after", "1"), ("retry-after-ms", "0")], rate, Some(ms(1000))),
        (&[("x-ms-retry-after-ms", "250")], rate, Some(ms(250))),
        (&[("retry-after", "86400")], rate, Some(RETRY_AFTER_MAX)),
        (&[("retry-after", "1e308")], rate, Some(RETRY_AFTER_MAX)),
        (&[("retry-after", "NaN")], rate, None),
        (&[("retry-after", "-1")], rate, None),
        (&[("retry-after", "soon")], rate, None),
        (&day, rate, Some(ms(30_000))),
        (&[("x-ratelimit-reset-requests", "20ms"), ("x-ratelimit-reset-tokens", "6m0s")], rate, Some(ms(360_000))),
        (
            &[
                ("x-ratelimit-remaining-requests", "0"),
                ("x-ratelimit-reset-requests", "20ms"),
                ("x-ratelimit-remaining-tokens", "9"),
                ("x-ratelimit-reset-tokens", "6m0s"),
            ],
            rate,
            Some(ms(20)),
        ),
        (&[("x-ratelimit-reset", "1772049732")], rate, Some(ms(10_000))),
        (&[], r#"{"error":{"details":[{"@type":"t/google.rpc.RetryInfo","retryDelay":"12s"}]}}"#, Some(ms(12_000))),
        (&[], r#"{"error":{"message":"Please try again in 7.66s."}}"#, Some(ms(7660))),
        (&[], r#"{"error":{"metadata":{"headers":{"X-RateLimit-Reset":"1772049732000"}}}}"#, Some(ms(10_000))),
        (&[], rate, None),
    ];
    for (headers, body, expected) in cases {
        assert_eq!(classify(429, headers, body).retry_after, *expected, "{headers:?} {body}");
    }
}

#[test]
fn a_wait_is_only_reported_for_what_time_can_heal() {
    let bucket = [("x-ratelimit-reset-requests", "6m0s"), ("retry-after", "5")];
    assert_eq!(classify(400, &bucket, "{}").retry_after, None);
    assert_eq!(classify(401, &bucket, "{}").retry_after, None);
    assert_eq!(classify(503, &bucket, "{}").retry_after, Some(Duration::from_secs(5)));
    assert_eq!(classify(500, &bucket[..1], "{}").retry_after, None, "every reply of some providers has reset headers");
}

#[test]
fn the_code_in_the_report_is_a_code_and_never_prose() {
    let code = |body: &str| classify(400, &[], body).code;
    assert_eq!(
        code(r#"{"error":{"type":"invalid_request_error","code":"model_not_found"}}"#).as_deref(),
        Some("model_not_found")
    );
    assert_eq!(code(r#"{"type":"error","error":{"type":"overloaded_error"}}"#).as_deref(), Some("overloaded_error"));
    assert_eq!(code(r#"{"error":{"code":"my secret prompt, in words"}}"#), None);
    assert_eq!(code(r#"{"error":{"code":"sk-abcdef"}}"#), None);
    assert_eq!(code(&format!(r#"{{"error":{{"code":"{}"}}}}"#, "a".repeat(65))), None);
    let amazon = [("x-amzn-errortype", "ThrottlingException:http://internal.amazon.com/coral/")];
    let report = classify(400, &amazon, r#"{"message":"Too many requests"}"#);
    assert_eq!((report.failure, report.code.as_deref()), (Failure::RateLimited, Some("ThrottlingException")));
}

#[test]
fn a_cut_body_still_tells_its_code() {
    assert_eq!(
        class(429, r#"{"error":{"message":"You exceeded your quota, \"x\"","type":"insufficient_quota","par"#),
        "quota_exhausted"
    );
    assert_eq!(
        class(400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too lo"#),
        "invalid_request"
    );
    assert_eq!(
        class(400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 2"#),
        "context_exceeded"
    );
    let deep = format!("{}1{}", "{\"error\":".repeat(5000), "}".repeat(5000));
    assert_eq!(class(500, &deep), "server_error");
}

#[test]
fn what_outlast_adapted_is_never_the_clients_fault() {
    let report = classify(400, &[], "{}");
    assert_eq!(report.failure, Failure::InvalidRequest);
    assert_eq!(of_adapted(report).failure, Failure::Unsupported);
    assert_eq!(of_adapted(FailureReport::of(Failure::Auth)).failure, Failure::Auth);
}

#[test]
fn a_link_in_a_message_is_no_evidence() {
    all(
        "invalid_request",
        &[
            (
                400,
                r#"{"error":{"message":"Bad file. See https://x.example/docs/tools/file-search#content_filter for more."}}"#,
            ),
            (400, r#"{"error":{"message":"Bad field, see https://x.example/billing/insufficient_quota"}}"#),
        ],
    );
}

#[test]
fn a_target_nobody_vouched_for_may_be_blind_without_it_being_the_clients_fault() {
    let blind =
        r#"{"error":{"code":500,"message":"image input is not supported - hint: you may need to provide the mmproj"}}"#;
    let other = r#"{"error":{"message":"temperature must be a number"}}"#;
    let needs = Needs { images: true, ..Needs::default() };
    let (unknown, sees) = (Capabilities::default(), Capabilities { images: Ability::Yes, ..Capabilities::default() });
    let text_only = Needs::default();
    let judged =
        |body: &str, needs: &Needs, can| of_unproven(classify(400, &[], body), body.as_bytes(), needs, can).failure;
    assert_eq!(judged(blind, &needs, &unknown), Failure::Unsupported);
    assert_eq!(judged(blind, &needs, &sees), Failure::InvalidRequest);
    assert_eq!(judged(blind, &text_only, &unknown), Failure::InvalidRequest);
    assert_eq!(judged(other, &needs, &unknown), Failure::InvalidRequest);
    assert_eq!(class(500, blind), "invalid_request", "no retry will help");
}

#[test]
fn finish_words_of_all_vendors_fall_into_the_hubs_six() {
    for (word, expected) in [
        ("stop", Finish::Stop),
        ("end_turn", Finish::Stop),
        ("STOP", Finish::Stop),
        ("stop_sequence", Finish::Stop),
        ("length", Finish::Length),
        ("max_tokens", Finish::Length),
        ("MAX_TOKENS", Finish::Length),
        ("model_length", Finish::Length),
        ("model_context_window_exceeded", Finish::Length),
        ("tool_calls", Finish::ToolCalls),
        ("tool_use", Finish::ToolCalls),
        ("content_filter", Finish::ContentFilter),
        ("SAFETY", Finish::ContentFilter),
        ("guardrail_intervened", Finish::ContentFilter),
        ("refusal", Finish::Refusal),
        ("pause_turn", Finish::Other),
        ("error", Finish::Other),
    ] {
        assert_eq!(finish(word), expected, "{word}");
    }
    assert_eq!(broken_finish("error"), Some(Failure::ServerError));
    assert_eq!(broken_finish("MALFORMED_FUNCTION_CALL"), Some(Failure::ToolMismatch));
    assert_eq!(broken_finish("length"), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn no_body_no_header_and_no_status_can_make_it_panic(
        status in 0u16..1000,
        header_value in ".{0,40}",
        body in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..2048),
            "[\\[{\"a-z:,\\\\}\\]0-9 é’]{0,512}".prop_map(String::into_bytes),
            "\\{\"error\":\\{\"(code|message|type|retryDelay|quotaId)\":\".{0,80}\"".prop_map(String::into_bytes),
        ],
        now in any::<i64>(),
    ) {
        let report = response(status, |_| Some(&header_value), &body, Wall(now));
        prop_assert_eq!(report.status, Some(status));
        prop_assert!(report.retry_after.is_none_or(|wait| wait <= RETRY_AFTER_MAX));
        let is_code = |code: &str| code.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        prop_assert!(report.code.is_none_or(|code| code.len() <= 64 && is_code(&code)));
        in_band(&body);
    }

    #[test]
    fn a_429_never_counts_as_a_fault(message in ".{0,60}", kind in prop_oneof!["[a-z_]{0,24}", Just("overloaded_error".to_owned()), Just("timeout_error".to_owned())]) {
        let body = serde_json::json!({"error": {"message": message, "type": kind}}).to_string();
        let blame = classify(429, &[], &body).failure.remedy().blame;
        prop_assert_ne!(blame, outlast_model::failure::Blame::Fault);
    }
}
