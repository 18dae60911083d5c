"""Judge whose fault a provider's failure is: the request's, the operator's, or the moment's.

A specific word ("insufficient_quota") counts more than the status it comes with: an empty account
is reported as 401, 403 and 429, too. A general word ("invalid_request_error") counts only where
there is no status, unless it is about limits or load.
"""

import re
from collections.abc import Mapping
from enum import Enum, auto

from weir.chat.reports import Report


class Fault(Enum):
    REQUEST = auto()
    TOO_LONG = auto()  # for the model's context
    TOO_LARGE = auto()
    FILTERED = auto()  # its content is not allowed
    KEY = auto()
    CREDIT = auto()
    MODEL = auto()  # or the path is not known
    ABOVE_LIMIT = auto()  # larger than the limit of a whole minute: waiting does not help
    LIMITED = auto()
    OVERLOADED = auto()
    FAILED = auto()


OF_THE_REQUEST = frozenset({Fault.REQUEST, Fault.TOO_LONG, Fault.TOO_LARGE, Fault.FILTERED})


def fault_of(status: int | None, report: Report) -> Fault:
    """Judge a failure. `status` is None where only words say what it is."""
    if status is not None and not 400 <= status <= 599:
        return Fault.FAILED
    if status == 402:
        return Fault.CREDIT
    specific = _by_word(_SPECIFIC, report)
    if specific is None and report.filtered and status in (None, 400, 403, 451):
        specific = Fault.FILTERED
    specific = specific or _by_sentence(status, report.message)
    if specific is not None:
        return specific
    general = _by_word(_GENERAL, report)
    if status is None:
        return general or Fault.FAILED
    if general in (Fault.LIMITED, Fault.OVERLOADED):
        return Fault.ABOVE_LIMIT if status == 413 else general
    return _BY_STATUS.get(status, Fault.FAILED)


def _by_word(faults: Mapping[str, Fault], report: Report) -> Fault | None:
    return next((faults[word] for word in report.words if word in faults), None)


def _by_sentence(status: int | None, message: str) -> Fault | None:
    """Judge by the sentences of providers that have no word for it. What may quote the caller must
    begin with one.
    """
    find = re.match if status in (400, 404, 422) else re.search
    for statuses, sentence, fault in _SENTENCES:
        if status in statuses and find(f"(?i){sentence}", message[:1000]):
            return fault
    return None


def _table(**words: str) -> dict[str, Fault]:
    return {word: Fault[fault] for fault, several in words.items() for word in several.split()}


_BY_STATUS = {
    400: Fault.REQUEST,
    401: Fault.KEY,
    403: Fault.KEY,
    404: Fault.MODEL,
    413: Fault.TOO_LARGE,
    422: Fault.REQUEST,
    429: Fault.LIMITED,
    498: Fault.OVERLOADED,  # Groq: no capacity for flex processing
    529: Fault.OVERLOADED,  # Anthropic
}
# As `Report.words` spells them.
_SPECIFIC = _table(
    CREDIT="insufficientquota insufficientuserquota creditserror insufficientbalance "
    "insufficientaccountbalance insufficientcredits insufficientcredit insufficientfunds "
    "billinghardlimitreached billingsoftlimitreached billinglimitreached billingnotactive "
    "billingerror creditbalancetoolow creditbalanceexhausted creditlimitexceeded paymentrequired "
    "exceededcurrentquotaerror arrearage accountoverdueerror monthlylimiterror userlimiterror "
    "spendlimitreached preconsumetokenquotafailed budgetexceeded",
    FILTERED="contentfilter contentfiltered contentpolicyviolation contentpolicyviolationerror "
    "contentpolicy contentmoderation moderation moderationblocked responsibleaipolicyviolation "
    "datainspectionfailed contentblocked piiblocked promptblocked prohibitedcontent",
    TOO_LONG="contextlengthexceeded contextlengthexceedederror exceedcontextsizeerror "
    "contextwindowexceedederror modelcontextwindowexceeded prompttoolong",
    MODEL="modelnotfound modelnotfounderror modelnotavailable modelnotexist modeldecommissioned "
    "invalidmodel unknownmodel modelnotsupported deploymentnotfound",
    KEY="invalidapikey apikeyinvalid incorrectapikey apikeyexpired unrecognizedclientexception "
    "expiredtokenexception missingauthenticationtokenexception",
)
_GENERAL = _table(
    LIMITED="ratelimitexceeded ratelimitexceedederror ratelimiterror ratelimited ratelimit "
    "userratelimitexceeded dailylimitexceeded quotaexceeded servicequotaexceededexception "
    "toomanyrequests toomanyrequestserror throttlingexception throttled throttling "
    "resourceexhausted requestlimitexceeded limitrequests freeusagelimiterror slowdown",
    OVERLOADED="overloadederror overloaded engineoverloadederror engineoverloaded modeloverloaded "
    "serveroverloaded capacityexceeded resourceunavailable modelnotreadyexception "
    "insufficientsystemresource unavailable serviceunavailableexception",
    TOO_LARGE="requesttoolarge payloadtoolarge contenttoolarge requestentitytoolarge "
    "tokenslimitreached",
    MODEL="notfounderror notfound resourcenotfoundexception",
    KEY="authenticationerror unauthenticated unauthorized invalidauthentication "
    "invalidauthenticationerror autherror permissionerror permissiondenied permissiondeniederror "
    "accessdenied accessdeniedexception forbidden insufficientpermissions",
    REQUEST="invalidrequesterror invalidrequest badrequest badrequesterror invalidargument "
    "invalidprompt invalidparameter invalidparametererror validationerror validationexception "
    "unprocessableentity unprocessableentityerror unsupportedparameter unsupportedvalue "
    "invalidvalue missingrequiredparameter outofrange",
)
# Compiled when they are needed, which is rarely: every start would pay for it otherwise.
_SENTENCES: tuple[tuple[tuple[int | None, ...], str, Fault], ...] = (
    (  # Anthropic says it as a 400; SiliconFlow, OpenRouter and xAI as a 403; Fireworks as a 412
        (None, 400, 401, 403, 412, 429),
        r"(sorry, )?(your )?(credit|account) balance is (too low|insufficient|not enough)"
        r"|insufficient (account )?(balance|credits?|funds|quota)\b|key limit exceeded"
        r"|.{0,60}used all available credits|.{0,60}out of credits|.{0,60}account suspended"
        "|\u4f59\u989d\u4e0d\u8db3",  # "insufficient balance"
        Fault.CREDIT,
    ),
    ((None, 400, 403), r"content violates usage guidelines", Fault.FILTERED),  # xAI
    (  # Google and xAI say it as a 400
        (None, 400),
        r"(incorrect|invalid|missing) (or invalid )?api[ _-]?key|api[ _-]?key (not valid|expired)",
        Fault.KEY,
    ),
    (  # Amazon Bedrock, DeepSeek, Mistral
        (None, 400, 422),
        r"the provided model identifier is invalid|model not exist|invalid model\b",
        Fault.MODEL,
    ),
    ((404,), r"no endpoints found that (support|can handle)", Fault.REQUEST),  # OpenRouter
    ((None, 413, 429), r"^request too large for", Fault.ABOVE_LIMIT),  # OpenAI, Groq
    (
        (None, 400, 422),
        r".{0,60}(\bmaximum context length|\bcontext (size|window|length)|prompt is too long"
        r"|exceeds the maximum number of tokens)",
        Fault.TOO_LONG,
    ),
    ((None, 500, 503), r"\boverloaded\b|\b(at|over|out of) capacity\b", Fault.OVERLOADED),
    ((None,), r"\brate.?limit|\btoo many requests|\bquota\b", Fault.LIMITED),
)
