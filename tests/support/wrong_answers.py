"""Answers of learners: typical wrong ones with a part of their hint, and right ones written in other ways.

Each list has (number of the exercise, answer, part of the feedback).
"""

import random

import numpy as np
import torch
from torch.nn import functional

from iptkit.engine.sites import choose
from iptkit.methods import p_tuning
from iptkit.methods.p_tuning_v2 import DeepPrompt
from iptkit.scores import intervals, summary
from iptkit.tasks.wordings import Template, Verbalizer, Wording


# ---- 02.1: the loss of a batch -------------------------------------------------------------------
def shifted(logits, tokens):
    return -logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]


def not_shifted(logits, tokens, is_answer):
    return functional.cross_entropy(logits[is_answer], tokens[is_answer])


def marks_not_shifted(logits, tokens, is_answer):
    return shifted(logits, tokens)[is_answer[:, :-1]].mean()


def all_positions(logits, tokens, is_answer):
    return functional.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), tokens[:, 1:].reshape(-1))


def zeros_count(logits, tokens, is_answer):
    return (shifted(logits, tokens) * is_answer[:, 1:]).mean()


def summed(logits, tokens, is_answer):
    return (shifted(logits, tokens) * is_answer[:, 1:]).sum()


def per_row(logits, tokens, is_answer):
    rows = (shifted(logits, tokens) * is_answer[:, 1:]).sum(1) / is_answer.sum(1)
    return rows.mean()


def divided_by_rows(logits, tokens, is_answer):
    return summed(logits, tokens, is_answer) / len(logits)


def wrong_sign(logits, tokens, is_answer):
    return -shifted(logits, tokens)[is_answer[:, 1:]].mean()


def not_averaged(logits, tokens, is_answer):
    return shifted(logits, tokens)[is_answer[:, 1:]]


def sigmoid(logits, tokens, is_answer):
    log_p = logits[:, :-1].sigmoid().log().gather(-1, tokens[:, 1:, None])[..., 0]
    return -log_p[is_answer[:, 1:]].mean()


def softmax_over_positions(logits, tokens, is_answer):
    log_p = logits.log_softmax(1)[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
    return -log_p[is_answer[:, 1:]].mean()


def no_logarithm(logits, tokens, is_answer):
    p = logits[:, :-1].softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    return -p[is_answer[:, 1:]].mean()


def only_logits(logits, tokens, is_answer):
    return functional.nll_loss(logits[:, :-1][is_answer[:, 1:]], tokens[:, 1:][is_answer[:, 1:]])


def shifted_back(marks):
    def batch_loss(logits, tokens, is_answer):
        log_p = logits[:, 1:].log_softmax(-1).gather(-1, tokens[:, :-1, None])[..., 0]
        return -log_p[is_answer[:, marks]].mean()

    return batch_loss


def index_of_two_axes(logits, tokens, is_answer):
    return -logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:])[is_answer[:, 1:]].mean()


def as_numpy(logits, tokens, is_answer):
    log_p = np.log(np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(-1, keepdims=True))
    picked = np.take_along_axis(log_p[:, :-1], tokens.numpy()[:, 1:, None], -1)[..., 0]
    return -picked[is_answer.numpy()[:, 1:]].mean()


def returns_nothing(logits, tokens, is_answer):
    shifted(logits, tokens)


def indexes_out_of_range(logits, tokens, is_answer):
    return logits[0, 99]


def exits(logits, tokens, is_answer):
    raise SystemExit(3)


def huge(logits, tokens, is_answer):
    return torch.zeros(1).expand(10**13)


def shouts(logits, tokens, is_answer):
    print("<b>look</b>\x1b[2J" * 10_000)
    return "a" * 10_000_000


def in_place(logits, tokens, is_answer):
    logits -= logits.logsumexp(-1, keepdim=True)
    return -logits[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0][is_answer[:, 1:]].mean()


def not_a_number(logits, tokens, is_answer):
    return torch.tensor(float("nan"))


def made_up(logits, tokens, is_answer):
    return 7.5


class Liar:
    """An object that cannot even be shown."""

    def __repr__(self):
        raise RuntimeError("no")

    __str__ = __float__ = __array__ = __len__ = __repr__


def lies(logits, tokens, is_answer):
    return Liar()


def raises_a_lie(logits, tokens, is_answer):
    class Hidden(Exception):
        def __str__(self):
            raise RuntimeError("no")

    raise Hidden


# ---- 02.2: one training step ---------------------------------------------------------------------
def step(
    model,
    P,
    text,
    answer,
    lr,
    *,
    front="text",
    late=0,
    loss=lambda x: x.mean(1).sum(),
    sign=-1,
    log=lambda logits: logits.log_softmax(-1),
    axis=1,
):
    embed, P = model.get_input_embeddings(), P.detach().clone().requires_grad_()
    pieces = [embed(text), P] if front == "text" else [P, embed(text)]
    first = text.shape[1] + P.shape[1] - 1 + late
    log_p = log(model(inputs_embeds=torch.cat([*pieces, embed(answer)], axis)).logits)
    log_p = log_p[:, first : first + answer.shape[1]].gather(-1, answer[..., None])[..., 0]
    (gradient,) = torch.autograd.grad(loss(-log_p), P)
    return (P + sign * lr * gradient).detach()


def changed(**how):
    def train_step(model, P, text, answer, lr):
        return step(model, P, text, answer, lr, **how)

    return train_step


def forgets_lr(model, P, text, answer, lr):
    return step(model, P, text, answer, 1.0)


def learns_nothing(model, P, text, answer, lr):
    step(model, P, text, answer, lr)
    return P


def keeps_the_graph(model, P, text, answer, lr):
    return step(model, P, text, answer, lr) + 0 * P.requires_grad_()


def fills_the_model(model, P, text, answer, lr):
    model(input_ids=text).logits.sum().backward()
    return step(model, P, text, answer, lr)


def trains_the_model(model, P, text, answer, lr):
    with torch.no_grad():
        next(model.parameters()).sub_(lr)
    return P


def overwrites_the_prompt(model, P, text, answer, lr):
    return P.copy_(step(model, P, text, answer, lr))


def steps_by_adam(model, P, text, answer, lr):
    new = torch.nn.Parameter(P.clone())
    new.grad = P - step(model, P, text, answer, 1.0)
    torch.optim.Adam([new], lr=lr).step()
    return new.detach()


def forgets_the_answer(model, P, text, answer, lr):
    P = P.clone().requires_grad_()
    x = torch.cat([model.get_input_embeddings()(text), P], 1)
    log_p = model(inputs_embeds=x).logits[:, -1].log_softmax(-1)  # [R, V]
    (gradient,) = torch.autograd.grad(-log_p.gather(-1, answer).mean(1).sum(), P)
    return (P - lr * gradient).detach()


def asks_no_gradient_of_P(model, P, text, answer, lr):
    embed = model.get_input_embeddings()
    loss = model(inputs_embeds=torch.cat([embed(text), P, embed(answer)], 1)).logits.sum()
    return P - lr * torch.autograd.grad(loss, P)[0]


def uses_another_copy(model, P, text, answer, lr):
    new, P = P.clone().requires_grad_(), P.requires_grad_()
    loss = model(inputs_embeds=P).logits.sum()
    return (P - lr * torch.autograd.grad(loss, new)[0]).detach()


def keeps_the_tuple(model, P, text, answer, lr):
    P = P.clone().requires_grad_()
    return P - lr * torch.autograd.grad(model(inputs_embeds=P).logits.sum(), P)


def embeds_as_the_lesson(model, P, text, answer, lr):
    return model.embedding[text]


def adds_a_weight(model, P, text, answer, lr):
    model.prompt = torch.nn.Parameter(P)
    return P


# ---- 03.2: parameters of P-tuning ----------------------------------------------------------------
def counted(half=1, biases=2, gates=4, inputs=1, linears=2):
    def num_trainable(n, d):
        h = d // 2
        lstm = 4 // half * gates * h * (d + h + biases)
        return inputs * n * d + lstm + linears * (d * d + d)

    return num_trainable


# ---- 00.1 and 00.2 -------------------------------------------------------------------------------
def counts_each_layer(module):
    """Layer by layer, so that the shared matrix counts for each layer that uses it."""
    layers = [layer for layer in module.modules() if not list(layer.children())]
    own = [p for p in module.parameters(recurse=False) if p.requires_grad]
    return sum(p.numel() for p in own) + sum(
        p.numel() for layer in layers for p in layer.parameters() if p.requires_grad
    )


def by_state_dict(module):
    return sum(p.numel() for p in module.state_dict().values() if p.requires_grad)


def unfreezes(module):
    return sum(p.requires_grad_().numel() for p in module.parameters())


def split_groups(order=lambda seen, unseen: (seen, unseen), change=0, fixed=False, blind=False, listed=None):
    """The right split, with an error or without one."""

    def split(group_of, num_unseen, seed):
        drawn = random.Random(0 if fixed else None if blind else seed)
        names = group_of.values()
        groups = sorted(set(names)) if listed is None else list(listed(names))
        chosen = drawn.sample(groups, num_unseen + change)
        sides = [[task for task, group in group_of.items() if (group in chosen) == k] for k in (False, True)]
        return order(*sides)

    return split


def split_by_tasks(group_of, num_unseen, seed):
    tasks = sorted(group_of)
    random.Random(seed).shuffle(tasks)
    return tasks[num_unseen:], tasks[:num_unseen]


def names_of_groups(group_of, num_unseen, seed):
    names = sorted(set(group_of.values()))
    random.Random(seed).shuffle(names)
    return names[num_unseen:], names[:num_unseen]


def empties(group_of, num_unseen, seed):
    sides = split_groups()(group_of, num_unseen, seed)
    group_of.clear()
    return sides


# ---- 03.3: the row of any layout -----------------------------------------------------------------
def placed(order=None, is_counted=True, answer_at="end", each=None):
    def row_of(layout, P, table, text, anchor, answer):
        words, pieces, used = {"text": table[text], "anchor": table[anchor]}, [], 0
        for entry in order or layout:
            if entry in words:
                pieces.append(words[entry])
                continue
            pieces.append(P[used : used + (each or entry)])
            used += is_counted * (each or entry)
        ends = {"end": [*pieces, table[answer]], "start": [table[answer], *pieces], "nowhere": pieces}
        return torch.cat(ends[answer_at])

    return row_of


def takes_vector_number_k(layout, P, table, text, anchor, answer):
    words = {"text": table[text], "anchor": table[anchor]}
    pieces = [words[entry] if entry in words else P[entry, None] for entry in layout]
    return torch.cat([*pieces, table[answer]])


# ---- 01.1 and 04.1 -------------------------------------------------------------------------------
def wording(template="{text} I felt {answer}", **words):
    words = words or {"negative": ("low",), "positive": ("high",)}
    return lambda: Wording(Template(template), Verbalizer(words))


def prompt_for(layers, runs=1, extra=0):
    return lambda sites, n, generator: DeepPrompt(runs, sites[layers], n + extra, generator)


# ---- 05.1: the mean code ---------------------------------------------------------------------------
def mean_code(how=None, first="std", inner=torch.tanh, last="both"):
    """A function for exercise 05.1 in which one thing is wrong."""

    def mean_code_prompt(P, mean, std, W1, b1, W2, b2, W3, b3):
        flat = P.flatten(1)
        p = {"std": (flat - mean) / std, "mean": flat - mean, "none": flat}[first]
        z = p @ W1.T + b1
        z = {"code": z, "values": z.mean(1)}.get(how, z.mean(0))
        out = inner(z @ W2.T + b2) @ W3.T + b3
        shape = (*out.shape[:-1], *P.shape[1:])
        return {"both": mean + std * out, "none": out, "mean": mean + out}[last].view(shape)

    return mean_code_prompt


def mean_of_decoded(*arguments):
    return mean_code("code")(*arguments).mean(0)


def tanh_of_the_code(P, mean, std, W1, b1, W2, b2, W3, b3):
    z = (((P.flatten(1) - mean) / std) @ W1.T + b1).mean(0)
    return (mean + std * ((torch.tanh(z) @ W2.T + b2) @ W3.T + b3)).view(P.shape[1:])


def by_layers(P, mean, std, W1, b1, W2, b2, W3, b3):
    """With functional.linear; the mean code as the code of the mean, because the encoder is linear."""
    return rows_of_layers(P, mean, std, W1, b1, W2, b2, W3, b3)[0]


def rows_of_layers(P, mean, std, W1, b1, W2, b2, W3, b3):
    z = functional.linear((P.mean(0, keepdim=True).flatten(1) - mean) / std, W1, b1)
    out = functional.linear(torch.tanh(functional.linear(z, W2, b2)), W3, b3)
    return (mean + std * out).reshape(1, *P.shape[1:]).numpy()


def of_bank(own_mean, own_std):
    """Mean and standard deviation taken from P, where these are functions of the rows and not None."""

    def mean_code_prompt(P, mean, std, *weights):
        flat = P.flatten(1)
        return mean_code()(
            P, own_mean(flat) if own_mean else mean, own_std(flat) if own_std else std, *weights
        )

    return mean_code_prompt


def one_std(flat):
    return (flat - flat.mean(0)).square().mean().sqrt()


def leaves_P_out(P, mean, std, W1, b1, *weights):
    return mean_code()(torch.zeros_like(P) + mean.view(P.shape[1:]), mean, std, W1, b1, *weights)


def forgets_to_flatten(P, mean, std, *weights):
    return mean_code()((P - mean) / std, mean, std, *weights)


def forgets_to_transpose(P, mean, std, W1, b1, *weights):
    return (P.flatten(1) - mean) / std @ W1 + b1


# ---- 05.2: parameters of the auto-encoder --------------------------------------------------------
def layers(bias=1, parts=("encoder", "inner", "outer"), size=lambda n, d: n * d):
    def num_parameters(n, d, hidden, d_I):
        D = size(n, d)
        shapes = {"encoder": (D, d_I), "inner": (d_I, hidden), "outer": (hidden, D), "linear": (d_I, D)}
        return sum(a * b + bias * b for a, b in (shapes[part] for part in parts))

    return num_parameters


# ---- 06.1: one step of IST -------------------------------------------------------------------------
def ist(sign=-1, code=lambda c, s, u: c + s * u, total=torch.sum, rows=lambda g: g):
    def ist_step(decoder, loss_of, center, unit, u, lr):
        v = u.clone().requires_grad_()
        (g,) = torch.autograd.grad(total(loss_of(decoder(code(center, unit, v)))), v)
        return u + sign * lr * rows(g)

    return ist_step


def trains_the_decoder(decoder, loss_of, center, unit, u, lr):
    u = u.clone().requires_grad_()
    optimiser = torch.optim.SGD([u, *decoder.parameters()], lr=lr)
    loss_of(decoder(center + unit * u)).sum().backward()
    optimiser.step()
    return u.detach()


def fills_the_decoder(decoder, loss_of, center, unit, u, lr):
    u = u.clone().requires_grad_()
    loss_of(decoder(center + unit * u)).sum().backward()
    return (u - lr * u.grad).detach()


def detaches_the_prompt(decoder, loss_of, center, unit, u, lr):
    u = u.clone().requires_grad_()
    (g,) = torch.autograd.grad(loss_of(decoder(center + unit * u).detach()).sum(), u)
    return u - lr * g


def asks_for_another_u(decoder, loss_of, center, unit, u, lr):
    v = u.clone().requires_grad_()
    loss = loss_of(decoder(center + unit * u.clone().requires_grad_())).sum()
    return u - lr * torch.autograd.grad(loss, v)[0]


def grads(gradient=lambda loss, u: torch.autograd.grad(loss.sum(), u)[0], losses=None):
    def ist_step(decoder, loss_of, center, unit, u, lr):
        u = u.clone().requires_grad_()
        prompts = decoder(center + unit * u)
        return (
            u - lr * gradient(loss_of(prompts) if losses is None else losses(loss_of, prompts), u)
        ).detach()

    return ist_step


def with_adam(decoder, loss_of, center, unit, u, lr):
    u = torch.nn.Parameter(u.clone())
    optimiser = torch.optim.Adam([u], lr=lr)
    optimiser.zero_grad()
    (u.grad,) = torch.autograd.grad(loss_of(decoder(center + unit * u)).sum(), u)
    optimiser.step()
    return u.data


def steps_along_z(decoder, loss_of, center, unit, u, lr):
    z = (center + unit * u).requires_grad_()
    return u - lr * torch.autograd.grad(loss_of(decoder(z)).sum(), z)[0]


def returns_z(decoder, loss_of, center, unit, u, lr):
    return center + unit * ist()(decoder, loss_of, center, unit, u, lr)


def begins_anew(decoder, loss_of, center, unit, u, lr):
    return ist()(decoder, loss_of, center, unit, torch.zeros_like(u), lr)


def keeps_the_graph_of_u(decoder, loss_of, center, unit, u, lr):
    return ist()(decoder, loss_of, center, unit, u, lr) + 0 * u.requires_grad_()


def with_sgd(decoder, loss_of, center, unit, u, lr):
    """With an optimizer, one run at a time, the decoder frozen first."""
    decoder.requires_grad_(False)
    u = torch.nn.Parameter(u.clone())
    optimiser = torch.optim.SGD([u], lr=lr)
    loss_of(decoder(center + unit * u)).sum().backward()
    optimiser.step()
    return u.data


# ---- 06.2: E_rel and the ratio of means ------------------------------------------------------------
def kept(e_rel=lambda mine, full, used: (mine / full)[used].mean(), of_all=True, order=1):
    def relative(scores, full):
        mine, whole = scores.mean(0), full.mean(0)
        used = whole >= 0.05
        some = torch.ones_like(used) if of_all else used
        return [e_rel(mine, whole, used), mine[some].sum() / whole[some].sum()][::order]

    return relative


def by_seed(scores, full):
    used = full >= 0.05
    return (scores[used] / full[used]).mean(), scores.mean() / full.mean()


def each_seed(e_rel=True, ratio=True):
    """E_rel, the ratio of means, or both, for each seed first."""

    def relative(scores, full):
        right, used = kept()(scores, full), full.mean(0) >= 0.05
        ours = (scores / full)[:, used].mean(), (scores.mean(1) / full.mean(1)).mean()
        return ours[0] if e_rel else right[0], ours[1] if ratio else right[1]

    return relative


def wrong_axis(scores, full):
    return kept()(scores.T, full.T)


def still_by_task(scores, full):
    return scores.mean(0) / full.mean(0), scores.mean() / full.mean()


def divides_by_zero(scores, full):
    return (scores / full).mean(0).mean(), scores.mean() / full.mean()


# ---- 07.1: E_rel with crossed samples --------------------------------------------------------------
def crossed(
    other=lambda full: full.flip(0),
    used=lambda scores, full: (full >= 0.05).all(0),
    mean=lambda ratio, used: ratio[:, used].mean(),
):
    return lambda scores, full: mean(scores / other(full), used(scores, full))


def every_task(scores, full):
    return torch.ones(full.shape[1], dtype=torch.bool)


def drops_single_scores(each_task_first=False):
    def e_rel(scores, full):
        other = full.flip(0)
        ratio = torch.where(other >= 0.05, scores / other, float("nan"))
        return (ratio.nanmean(0) if each_task_first else ratio).nanmean()

    return e_rel


def ratio_of_means(scores, full):
    used = (full >= 0.05).all(0)
    return scores[:, used].mean() / full[:, used].mean()


def multiplies_by_the_mask(scores, full):
    used = (full.min(0).values >= 0.05).float()
    return (scores / full.flip(0) * used).sum() / (2 * used.sum())


def reverses_as_a_list(scores, full):
    return crossed(lambda full: full[::-1])(scores, full)


def masks_the_samples(scores, full):
    return (scores / full.flip(0))[(full >= 0.05).all(0)].mean()


def blanks_small_scores(scores, full):
    full[full < 0.05] = float("nan")
    return (scores / full.flip(0)).mean(0).nanmean()


def task_by_task(scores, full):
    """With a loop over tasks and plain numbers."""
    ratios = []
    for (a, b), (c, d) in zip(scores.T.tolist(), full.T.tolist(), strict=True):
        if min(c, d) >= 0.05:
            ratios.append((a / d + b / c) / 2)
    return sum(ratios) / len(ratios)


def by_the_kit(scores, full):
    """With the rows that the kit's `summary.ratios` takes."""
    rows = [
        {"method": method, "d_I": dim, "split": "unseen", "task": t, "seed": s, "score": x, "chance": 0.0}
        for method, dim, table in (("IST", 5, scores), ("prompt tuning", 0, full))
        for s, of_sample in enumerate(table.tolist())
        for t, x in enumerate(of_sample)
    ]
    found = summary.ratios(rows, ("IST", 5), "unseen", crossed=True)
    return np.mean([np.mean(of_task) for of_task in found.values()])


# ---- 07.2: the standard error over groups ----------------------------------------------------------
def clustered(
    center=lambda values, groups: values.mean(),
    mean=lambda values, groups: values.mean(),
    inner=lambda deviations: deviations.sum() ** 2,
    number=lambda values, groups: len(groups.unique()),
    factor=lambda G: G / (G - 1),
    last=lambda total, T, G: total**0.5 / T,
    labels=lambda groups: groups.unique(),
    order=1,
):
    def error(values, groups):
        T, G = len(values), number(values, groups)
        deviations = values - center(values, groups)
        total = factor(G) * sum(inner(deviations[groups == g]) for g in labels(groups))
        return [mean(values, groups), last(total, T, G)][::order]

    return error


def mean_of_means(values, groups):
    return torch.stack([values[groups == g].mean() for g in groups.unique()]).mean()


def averages_first(values, groups):
    of_groups = torch.stack([values[groups == g].mean() for g in groups.unique()])
    return of_groups.mean(), of_groups.std() / len(of_groups) ** 0.5


def own_means(values, groups):
    return torch.stack([values[groups == g].mean() for g in groups])


def in_a_dictionary(values, groups):
    sums = {}
    for value, group in zip(values - values.mean(), groups, strict=True):
        sums[group] = sums.get(group, 0) + value
    G = len(sums)
    return values.mean(), (G / (G - 1) * sum(x**2 for x in sums.values())) ** 0.5 / len(values)


def side_by_side(values, groups):
    _, runs = groups.unique_consecutive(return_inverse=True)
    return clustered()(values, runs)


def adds_at_labels(values, groups):
    G = len(groups.unique())
    sums = torch.zeros(G).index_add(0, groups, values - values.mean())
    return values.mean(), (G / (G - 1) * sums.square().sum()).sqrt() / len(values)


def counts_to_the_highest(values, groups):
    sums = torch.bincount(groups, values - values.mean())
    G = len(sums)
    return values.mean(), (G / (G - 1) * sums.square().sum()).sqrt() / len(values)


def centers_in_place(values, groups):
    values -= values.mean()
    return clustered()(values, groups)


def by_products(values, groups):
    """With a sum over all pairs of tasks of one group, as arrays."""
    d, g = (values - values.mean()).double().numpy(), groups.numpy()
    G = len({*g.tolist()})
    total = (np.outer(d, d) * (g[:, None] == g)).sum()
    return np.array([values.mean(), np.sqrt(total * G / (G - 1)) / len(d)])


def by_the_kits_error(values, groups):
    return values.double().mean(), intervals.standard_error(values.tolist(), groups.tolist())[0]


# ---- 08.1: codes to deep prompts by layer ----------------------------------------------------------
def decoded(order=(1, 2, 0, 3, 4, 5), act=torch.tanh, cut=None, scale=lambda p, mean, std: mean + std * p):
    def decode_all(z, inner, outer, mean, std, shape):
        flat = scale(outer(act(inner(z))), mean, std)
        return flat.view(len(z), *shape).permute(order) if cut is None else flat.view(cut(len(z), shape))

    return decode_all


def without_biases(z, inner, outer, mean, std, shape):
    p = torch.tanh(z @ inner.weight.T) @ outer.weight.T
    return (mean + std * p).view(len(z), *shape).permute(1, 2, 0, 3, 4, 5)


def one_by_one(z, inner, outer, mean, std, shape):
    made = [
        mean + std * (outer.weight @ torch.tanh(inner.weight @ row + inner.bias) + outer.bias) for row in z
    ]
    return torch.stack([prompt.view(shape) for prompt in made], 2)


# ---- 09.1: FLOPs of prompt tuning ------------------------------------------------------------------
def tuning(read=2, train=4, texts=None, tokens=lambda prompt, answer: prompt + answer, rows=None):
    def tuning_flops(N, examples, text, prompt, answer, steps, batch):
        seen = examples if texts is None else texts(examples, steps, batch)
        passed = steps * batch if rows is None else rows(steps, batch)
        return N * (read * text * seen + train * tokens(prompt, answer) * passed)

    return tuning_flops


def reads_in_every_step(N, examples, text, prompt, answer, steps, batch):
    return 4 * N * (text + prompt + answer) * steps * batch


# ---- 90.1: a measurement to a verdict --------------------------------------------------------------
HOLDS, IN_PART, FAILS, OPEN = "holds", "holds in part", "does not hold here", "not testable at this scale"


def verdict(above=None, inside=None, below=None, clear=None, words=None):
    """The rules, with other answers to their questions or another word in place of a right one."""

    def judged(low, high, p, value, equal):
        def asked(question, right):
            return right if question is None else question(low, high, p, value, equal)

        is_clear = asked(clear, p <= 0.05)
        is_inside = asked(inside, value - equal < low and high < value + equal)
        if asked(above, low > value) and is_clear:
            word = IN_PART if is_inside else HOLDS
        else:
            word = FAILS if is_inside or (asked(below, high < value) and is_clear) else OPEN
        return (words or {}).get(word, word)

    return judged


def holds_value_so_fails(low, high, p, value, equal):
    if low > value and p <= 0.05:
        return IN_PART if high < value + equal else HOLDS
    if high < value and p <= 0.05:
        return FAILS
    if low > value - equal and high < value + equal:
        return FAILS
    return FAILS if low <= value <= high else OPEN


def not_significant_so_fails(low, high, p, value, equal):
    if p > 0.05:
        return FAILS
    return verdict()(low, high, p, value, equal)


def by_the_middle(low, high, p, value, equal):
    mean = (low + high) / 2
    return verdict()(mean, mean, p, value, equal)


def value_forgotten(low, high, p, value, equal):
    return verdict()(low, high, p, 0, equal)


def margin_first(low, high, p, value, equal):
    if value - equal < low and high < value + equal:
        return FAILS
    if p <= 0.05 and low > value:
        return HOLDS
    return FAILS if p <= 0.05 and high < value else OPEN


def holds_first(low, high, p, value, equal):
    if low > value and p <= 0.05:
        return HOLDS
    is_inside = low > value - equal and high < value + equal
    if is_inside and low > value and p <= 0.05:
        return IN_PART
    return FAILS if is_inside or (high < value and p <= 0.05) else OPEN


def significant_inside(low, high, p, value, equal):
    is_inside = low > value - equal and high < value + equal
    if is_inside:
        return IN_PART if p <= 0.05 else FAILS
    if p > 0.05:
        return OPEN
    return HOLDS if low > value else FAILS if high < value else OPEN


def beyond_the_margin(low, high, p, value, equal):
    if p <= 0.05 and low > value + equal:
        return HOLDS
    if p <= 0.05 and low > value:
        return IN_PART
    return verdict()(low, high, p, value, equal)


def begins_above_the_margin(low, high, p, value, equal):
    if p <= 0.05:
        if low > value + equal:
            return HOLDS
        if low > value and high < value + equal:
            return IN_PART
        if high < value:
            return FAILS
    return FAILS if low > value - equal and high < value + equal else OPEN


def by_sides_alone(low, high, p, value, equal):
    return HOLDS if low > value else FAILS if high < value else OPEN


def inside_and_small(low, high, p, value, equal):
    word = verdict()(low, high, p, value, equal)
    return OPEN if word == FAILS and p > 0.05 else word


def last_row_forgotten(low, high, p, value, equal):
    word = verdict()(low, high, p, value, equal)
    if word != OPEN:
        return word


def stops_later(low, high, p, value, equal):
    if high < value:
        raise ValueError("not yet thought of")
    return verdict()(low, high, p, value, equal)


# ---- 04.2: an attention with a prompt -------------------------------------------------------------
def attention(q, k, v, *, scale=True, axis=-1):
    scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale else 1)
    return scores.softmax(axis) @ v


def prompted(**how):
    return lambda q, k, v, K, V: attention(q, torch.cat([K, k], 1), torch.cat([V, v], 1), **how)


def swapped_values(q, k, v, K, V):
    return attention(q, torch.cat([K, k], 1), torch.cat([v, V], 1))


def keys_only(q, k, v, K, V):
    return attention(q, torch.cat([K, k], 1), v)


def two_softmaxes(q, k, v, K, V):
    return attention(q, k, v) + attention(q, K, V)


WRONG = [
    ("00.1", lambda module: sum(p.numel() for p in module.parameters()), "You count frozen parameters"),
    ("00.1", lambda module: sum(p.requires_grad for p in module.parameters()), "You count the tensors"),
    ("00.1", lambda module: len(module.P), "vectors of the prompt"),
    ("00.1", lambda module: module.P.numel(), "only the model trains"),
    ("00.1", counts_each_layer, "count it once"),
    ("00.1", by_state_dict, "Nothing trains by your count"),
    ("00.1", unfreezes, "You count frozen parameters"),
    ("00.2", split_by_tasks, "is on both sides"),
    ("00.2", split_groups(lambda seen, unseen: (unseen, seen)), "sides are swapped"),
    ("00.2", split_groups(lambda seen, unseen: unseen), "two lists of task names"),
    ("00.2", split_groups(lambda seen, unseen: (seen[1:], unseen)), "You lose tasks"),
    ("00.2", split_groups(lambda seen, unseen: (seen + unseen[:1], unseen)), "listed twice"),
    ("00.2", split_groups(change=1), "are unseen: 3; `num_unseen` asks for 2"),
    ("00.2", split_groups(fixed=True), "Every seed gives the same split"),
    ("00.2", split_groups(blind=True), "The same seed gives two splits"),
    ("00.2", split_groups(listed=set), "The same seed gives two splits"),
    ("00.2", split_groups(listed=dict.fromkeys), "The same seed gives two splits"),
    ("00.2", names_of_groups, "names of groups"),
    ("00.2", lambda group_of, num_unseen, seed: (["birds"] * 10**6, []), "two lists of task names"),
    ("00.2", empties, "changes its argument `group_of`"),
    ("00.3", "a", "the luck is gone"),
    ("00.3", "c", "so its score there is too high"),
    ("00.3", "(D)", "you do not draw"),
    ("00.3", 0.66, "choose one of"),
    ("01.1", lambda: Template("{text} {answer}"), "Template alone"),
    ("01.1", lambda: (Template("{text} {answer}"), 1), "put them together"),
    ("01.1", lambda: "great", "does not return a wording"),
    ("01.1", lambda: Template("{text}"), "answer slots; write {answer} once"),
    ("01.1", wording("{tweet} {answer}"), "the slots tweet"),
    ("01.1", wording(neg=("low",), pos=("high",)), "the labels neg, pos"),
    ("01.1", wording(negative=("Great",), positive=("high",)), "swapped"),
    ("01.1", wording("{text}\nIt was {answer}", negative=("terrible",), positive=("great",)), "comes with"),
    ("01.2", 0, "0 is too low: right is 0.16 to 0.28"),
    ("01.2", 0.08, "0.08 is too low"),
    ("01.2", 0.6, "0.6 is too high"),
    ("01.2", 22, "22 is too high"),
    ("01.3", lambda dev, test: test.max(1).values.mean(), "nobody knows beforehand"),
    ("01.3", lambda dev, test: dev.max(1).values.mean(), "return their test accuracies"),
    ("01.3", lambda dev, test: test[:, dev.mean(0).argmax()].mean(), "one wording for all tasks"),
    ("01.3", lambda dev, test: test[:, dev.argmax(1)].mean(), "task i with wording best[i]"),
    ("01.3", lambda dev, test: test.mean(), "nothing was chosen"),
    ("01.3", lambda dev, test: test.gather(1, dev.argmax(1)[:, None]), "return their mean"),
    ("01.3", lambda dev, test: test.flatten()[dev.argmax()], "none of the usual mistakes"),
    ("01.3", lambda dev, test: test.T[dev.argmax()], "without an axis"),
    ("01.4", "a", "So the order stays"),
    ("01.4", "C", "get another label"),
    ("01.4", "d", "no text overtakes"),
    ("02.1", not_shifted, "labels are not shifted"),
    ("02.1", marks_not_shifted, "but not `is_answer`"),
    ("02.1", all_positions, "mean over all positions"),
    ("02.1", zeros_count, "Zeros of the text"),
    ("02.1", summed, "sum over answer tokens"),
    ("02.1", per_row, "average each row first"),
    ("02.1", divided_by_rows, "divided by the number of rows"),
    ("02.1", wrong_sign, "sign is wrong"),
    ("02.1", not_averaged, "one value per token"),
    ("02.1", sigmoid, "sigmoid"),
    ("02.1", softmax_over_positions, "softmax is over positions"),
    ("02.1", no_logarithm, "mean of probabilities"),
    ("02.1", only_logits, "the logits themselves"),
    ("02.1", shifted_back(slice(None, -1)), "shift in the wrong direction"),
    ("02.1", shifted_back(slice(1, None)), "shift logits and tokens in the wrong direction"),
    ("02.1", index_of_two_axes, "index with as many axes"),
    ("02.1", as_numpy, "no gradient can pass"),
    ("02.1", lambda *given: by_hand(*given).item(), "no gradient can pass"),
    ("02.1", lambda *given: by_hand(*given).detach(), "no gradient can pass"),
    ("02.1", returns_nothing, "returns nothing"),
    ("02.1", indexes_out_of_range, "`return logits[0, 99]`"),
    ("02.1", exits, "ends the program"),
    ("02.1", huge, "a tensor of shape [10000000000000]; return one number"),
    ("02.1", shouts, "a str of length 10000000; return one number"),
    ("02.1", in_place, "changes its argument `logits`"),
    ("02.1", not_a_number, "not finite"),
    ("02.1", made_up, "yours is 7.5"),
    ("02.1", lies, "of type Liar"),
    ("02.1", raises_a_lie, "stops with Hidden (line"),
    ("02.1", lambda logits: logits, "cannot be called with its arguments (logits, tokens, is_answer)"),
    ("02.1", torch.tensor(2.0), "needs your function itself, not a tensor of shape []"),
    ("02.2", changed(sign=1), "goes uphill"),
    ("02.2", changed(front="prompt"), "stands before the text"),
    ("02.2", changed(late=1), "one position late"),
    ("02.2", changed(late=-1), "one position early"),
    ("02.2", changed(loss=torch.mean), "divided by the number of runs"),
    ("02.2", changed(loss=torch.sum), "larger by the number of answer tokens"),
    ("02.2", forgets_lr, "multiply it by `lr`"),
    ("02.2", learns_nothing, "nothing was learned"),
    ("02.2", keeps_the_graph, "still carries the graph"),
    ("02.2", fills_the_model, "leaves gradients in the weights of `model`"),
    ("02.2", trains_the_model, "changes the weights of `model`"),
    ("02.2", adds_a_weight, "changes the weights of `model`"),
    ("02.2", overwrites_the_prompt, "changes its argument `P`"),
    ("02.2", steps_by_adam, "a step of Adam"),
    ("02.2", forgets_the_answer, "answer is missing in your row"),
    ("02.2", changed(log=lambda logits: logits), "the logits themselves"),
    ("02.2", changed(loss=lambda losses: losses.mean(1)), "add the losses of the runs first"),
    ("02.2", asks_no_gradient_of_P, "The chain from P to the loss is cut"),
    ("02.2", uses_another_copy, "The chain from P to the loss is cut"),
    ("02.2", keeps_the_tuple, "returns a tuple"),
    ("02.2", embeds_as_the_lesson, "Here `model` is a Hugging Face model"),
    ("02.2", changed(axis=0), "on axis 1"),
    ("02.3", 0.9, "0.9 is too high: right is 0.06 to 0.11. Two random directions"),
    ("02.3", 0.17, "Keep your prediction and read on"),
    ("02.3", 0, "0 is too low"),
    ("02.3", float("nan"), "nan is no number"),
    ("02.3", "large", "give one number"),
    ("02.3", True, "give one number"),
    ("02.4", "a", "luck with these examples"),
    ("02.4", "C", "the test scores chose the seed"),
    ("02.4", "d", "luckier the best of them"),
    ("02.4", "bd", "choose one of"),
    ("03.1", "a", "It learns"),
    ("03.1", "d", "It learns"),
    ("03.2", counted(half=2), "half of the LSTM"),
    ("03.2", counted(half=4), "one direction of one layer"),
    ("03.2", counted(biases=1), "two vectors of biases"),
    ("03.2", counted(biases=0), "biases of the LSTM"),
    ("03.2", counted(gates=3), "three gates"),
    ("03.2", counted(inputs=0), "input vectors X"),
    ("03.2", counted(linears=1), "two linear layers"),
    ("03.2", lambda n, d: p_tuning.num_parameters(n, d) - d, "one of the MLP's two layers"),
    ("03.2", lambda n, d: p_tuning.num_parameters(n, d) - 2 * d * d, "its input has width d"),
    ("03.2", lambda n, d: p_tuning.num_parameters(n, d) - 7, "should be 8,278,272, and yours is 8,278,265"),
    ("03.2", counted(linears=0), "left out the MLP"),
    ("03.3", placed(is_counted=False), "Count how many are used already"),
    ("03.3", placed((6, "text", "anchor")), "in front of the text"),
    ("03.3", placed(("text", 6, "anchor")), "behind the text"),
    ("03.3", placed((3, "text", 2, "anchor", 1)), "right for one layout only"),
    ("03.3", placed((3, "text", 3, "anchor")), "the layout of `log_p_of`"),
    ("03.3", placed((3, "text", 3)), "anchor is missing"),
    ("03.3", placed((3, "anchor", 2, "text", 1)), "swapped"),
    ("03.3", placed(answer_at="nowhere"), "answer is missing"),
    ("03.3", placed(answer_at="start"), "answer stands at the beginning"),
    ("03.3", placed(each=1), "and you take one"),
    ("03.3", takes_vector_number_k, "vector number k"),
    ("03.4", 0, "0 is too low: right is 0.95 to 1. A new encoder"),
    ("03.4", 0.5, "0.5 is too low"),
    ("03.4", 1.2, "1.2 is too high"),
    ("03.4", "large", "give one number"),
    ("04.1", lambda sites, n, generator: sites[-1:], "These are the sites"),
    ("04.1", lambda sites, n, generator: 192, "does not return a DeepPrompt"),
    ("04.1", prompt_for(slice(None)), "all layers; choose"),
    ("04.1", prompt_for(-1), "takes a list of sites"),
    (
        "04.1",
        lambda sites, n, generator: DeepPrompt(1, choose(sites, -1), n, generator),
        "takes a list of layers",
    ),
    ("04.1", prompt_for(slice(0, 1)), "first layer, index 0"),
    ("04.1", prompt_for(slice(-1, None), extra=1), "4 virtual tokens; make it for 1 run"),
    ("04.1", prompt_for(slice(-1, None), runs=2), "2 runs"),
    ("04.2", lambda q, k, v, K, V: attention(q, k, v), "text alone"),
    ("04.2", lambda q, k, v, K, V: attention(q, K, V), "prompt alone"),
    ("04.2", two_softmaxes, "adds two attentions"),
    ("04.2", lambda *parts: two_softmaxes(*parts) / 2, "mean of two attentions"),
    ("04.2", prompted(scale=False), "not divided by sqrt(k)"),
    ("04.2", prompted(axis=-2), "over the queries"),
    ("04.2", swapped_values, "but the values have it last"),
    ("04.2", keys_only, "stops with RuntimeError"),
    ("04.2", lambda q, K, V, K_P, V_P: (q @ torch.cat([K_P, K], 1).T).softmax(-1), "turns around all axes"),
    ("04.3", "a", "Zeros are not nothing"),
    ("04.3", "b", "it is not -infinity"),
    ("04.3", "d", "cannot turn the output"),
    ("04.4", "a", "may be ahead"),
    ("04.4", "b", "not the same as equal"),
    ("04.4", "c", "is a cost"),
    ("05.1", mean_of_decoded, "mean of the decoded prompts"),
    ("05.1", mean_code("code"), "average their codes first"),
    ("05.1", mean_code("values"), "mean over the values of a code"),
    ("05.1", lambda P, *more: P.mean(0), "the mean prompt"),
    ("05.1", mean_code(inner=lambda x: x), "tanh is missing"),
    ("05.1", tanh_of_the_code, "not to the code"),
    ("05.1", mean_code(last="none"), "still standardised"),
    ("05.1", mean_code(last="mean"), "do not multiply by `std`"),
    ("05.1", mean_code(first="none"), "expects standardised prompts"),
    ("05.1", mean_code(first="mean"), "do not divide by `std`"),
    ("05.1", lambda P, *more: mean_code()(P, *more).flatten(), "return a tensor of shape [2, 5]"),
    ("05.1", of_bank(lambda flat: flat.mean(0), None), "You take the mean from P"),
    ("05.1", of_bank(None, one_std), "take the standard deviation from P"),
    ("05.1", of_bank(None, torch.std), "the standard deviation (`std()` of all values) from P"),
    ("05.1", of_bank(lambda flat: flat.mean(0), one_std), "Do not recompute them"),
    ("05.1", of_bank(lambda flat: flat.mean(0), lambda flat: (flat - flat.mean(0)).std()), "what is left"),
    ("05.1", of_bank(lambda flat: flat.mean(0), torch.std), "Do not recompute them"),
    ("05.1", of_bank(lambda flat: flat.mean(0), lambda flat: flat.std(0)), "one for each entry"),
    ("05.1", leaves_P_out, "Your mean code is b1"),
    ("05.1", forgets_to_flatten, "`P.flatten(1)`"),
    ("05.1", forgets_to_transpose, "`x @ W.T + b`"),
    ("05.1", rows_of_layers, "the shape is [1, 2, 5]"),
    ("05.2", lambda n, d, hidden, d_I: layers()(n, d, hidden, d_I) - n * d, "b3, are missing"),
    ("05.2", lambda n, d, hidden, d_I: layers()(n, d, hidden, d_I) - hidden, "b2, are missing"),
    ("05.2", lambda n, d, hidden, d_I: layers()(n, d, hidden, d_I) - d_I, "b1, are missing"),
    ("05.2", layers(bias=0), "biases are missing"),
    ("05.2", layers(parts=("inner", "outer")), "decoder alone"),
    ("05.2", layers(parts=("encoder",)), "encoder alone"),
    ("05.2", layers(size=lambda n, d: d), "not its width d"),
    ("05.2", layers(parts=("encoder", "linear")), "decoder has a hidden layer"),
    ("05.2", lambda n, d, hidden, d_I: d_I, "values of the code"),
    ("05.2", lambda n, d, hidden, d_I: 59_447_813, "none of the usual mistakes"),
    ("05.3", 100, "100 is too high: right is 99"),
    ("05.3", 5, "5 is too low"),
    ("05.3", 76_800, "span 99 directions"),
    ("05.4", "a", "the mean code loses as little"),
    ("05.4", "c", "hardly rebuilt"),
    ("05.4", "d", "0.24 more than the mean prompt"),
    ("06.1", trains_the_decoder, "changes the weights of `decoder`"),
    ("06.1", fills_the_decoder, "leaves gradients in the weights of `decoder`"),
    ("06.1", detaches_the_prompt, "The chain from u to the loss is cut"),
    ("06.1", asks_for_another_u, "The chain from u to the loss is cut"),
    ("06.1", ist(sign=1), "goes uphill"),
    ("06.1", ist(sign=0), "nothing was learned"),
    ("06.1", ist(code=lambda c, s, u: s * u), "starts at the zero code"),
    ("06.1", ist(code=lambda c, s, u: c + u), "multiply u by `unit`"),
    ("06.1", ist(code=lambda c, s, u: u), "u itself to the decoder"),
    ("06.1", ist(total=torch.mean), "divided by the number of runs"),
    ("06.1", ist(rows=lambda g: g.mean(0)), "mean over runs"),
    ("06.1", ist(rows=lambda g: g.sum(0)), "summed over runs"),
    ("06.1", steps_along_z, "gradient of z"),
    ("06.1", returns_z, "the new code z"),
    ("06.1", begins_anew, "start at u = 0"),
    ("06.1", keeps_the_graph_of_u, "still carries the graph"),
    ("06.1", with_adam, "a step of Adam"),
    ("06.1", grads(lambda loss, u: torch.autograd.grad(loss, u)[0]), "add them, `.sum()`"),
    ("06.1", grads(lambda loss, u: torch.autograd.grad(loss.sum(), u)), "returns a tuple"),
    (
        "06.1",
        grads(losses=lambda loss_of, prompts: torch.stack([loss_of(prompt) for prompt in prompts])),
        "all R prompts at once",
    ),
    ("06.2", kept(order=-1), "other order"),
    ("06.2", kept(lambda mine, full, used: (mine / full).mean()), "hardly solves"),
    ("06.2", kept(lambda mine, full, used: (mine / full)[mine >= 0.05].mean()), "the method's own scores"),
    ("06.2", by_seed, "seed by seed"),
    ("06.2", each_seed(ratio=False), "Your E_rel divides seed by seed, then"),
    ("06.2", each_seed(e_rel=False), "Your ratio of means divides seed by seed"),
    ("06.2", each_seed(), "Both of your numbers divide seed by seed"),
    ("06.2", wrong_axis, "averages over tasks first"),
    ("06.2", still_by_task, "a number for each task"),
    ("06.2", divides_by_zero, "You divide by 0"),
    ("06.2", kept(of_all=False), "ratio of means leaves out a task"),
    ("06.2", kept(lambda mine, full, used: mine.sum() / full.sum()), "Both of your numbers are the ratio"),
    ("06.2", kept(lambda mine, full, used: (mine / full)[used].sum() / len(full)), "counts the task"),
    ("06.2", lambda scores, full: scores.mean() / full.mean(), "return a tensor of shape [2]"),
    ("06.3", 0.5, "0.5 is too low: right is 0.6 to 0.65"),
    ("06.3", 0.8, "0.8 is too high"),
    ("06.3", "half", "give one number"),
    ("06.3", 62.5, "in per cent?"),
    ("06.4", "a", "adds 0.06 already"),
    ("06.4", "c", "not at the mean code"),
    ("06.4", "d", "no merit of tuning"),
    ("07.1", crossed(other=lambda full: full), "score of the same sample"),
    ("07.1", crossed(other=lambda full: full.mean(0)), "mean of both samples"),
    (
        "07.1",
        crossed(other=lambda full: full.mean(0), used=lambda scores, full: full.mean(0) >= 0.05),
        "mean score, as in exercise 06.2",
    ),
    ("07.1", crossed(used=every_task), "You leave out no task"),
    ("07.1", crossed(lambda full: full, every_task), "You leave out no task"),
    ("07.1", crossed(used=lambda scores, full: (scores >= 0.05).all(0)), "by the method's scores"),
    ("07.1", crossed(used=lambda scores, full: scores.mean(0) >= 0.05), "by the method's mean score"),
    (
        "07.1",
        crossed(used=lambda scores, full: (scores >= 0.05).all(0) & (full >= 0.05).all(0)),
        "also leave out tasks where the method fails",
    ),
    ("07.1", crossed(used=lambda scores, full: full.mean(0) >= 0.05), "mean score, as in exercise 06.2"),
    ("07.1", crossed(used=lambda scores, full: (full >= 0.05).any(0)), "if one score is large enough"),
    ("07.1", crossed(used=lambda scores, full: (full > 0.05).all(0)), "at least means"),
    ("07.1", drops_single_scores(), "You drop single scores, not tasks"),
    ("07.1", drops_single_scores(each_task_first=True), "then average each task over what is left"),
    ("07.1", lambda scores, full: (scores / full.flip(0))[full >= 0.05].mean(), "you do not divide by"),
    ("07.1", lambda scores, full: (scores / full)[full >= 0.05].mean(), "and divide by the score of the"),
    ("07.1", ratio_of_means, "This is the ratio of means. "),
    ("07.1", lambda scores, full: scores.mean() / full.mean(), "ratio of means over all tasks"),
    ("07.1", crossed(mean=lambda ratio, used: torch.where(used, ratio, 0).mean()), "left out as 0"),
    ("07.1", crossed(other=lambda full: full.flip(0).clamp(min=0.05), used=every_task), "raise small scores"),
    ("07.1", crossed(mean=lambda ratio, used: ratio[0, used].mean()), "first sample only"),
    ("07.1", crossed(mean=lambda ratio, used: ratio[1, used].mean()), "second sample only"),
    ("07.1", crossed(mean=lambda ratio, used: ratio[:, used].sum(0).mean()), "sum over both samples"),
    ("07.1", crossed(mean=lambda ratio, used: ratio[:, used].mean(0).sum()), "sum over tasks"),
    ("07.1", crossed(mean=lambda ratio, used: ratio[:, used].sum()), "sum over samples and tasks"),
    ("07.1", lambda scores, full: crossed()(scores.mean(0), full), "before you divide"),
    ("07.1", lambda scores, full: crossed()(full, scores), "You mix up `scores` and `full`"),
    ("07.1", crossed(mean=lambda ratio, used: (1 / ratio[:, used]).mean()), "upside down"),
    ("07.1", crossed(other=lambda full: full.flip(1)), "order of the tasks"),
    ("07.1", crossed(other=lambda full: full.flip(1), used=every_task), "and leave out no task"),
    ("07.1", crossed(other=lambda full: full.flip(0, 1)), "both axes"),
    ("07.1", crossed(other=lambda full: full.roll(1)), "`roll` without an axis"),
    ("07.1", crossed(mean=lambda ratio, used: ratio[:, used].mean(1)), "one value per sample"),
    ("07.1", crossed(mean=lambda ratio, used: ratio[:, used].mean(0)), "E_rel is one number"),
    ("07.1", crossed(mean=lambda ratio, used: ratio[:, used]), "for each sample and task"),
    ("07.1", multiplies_by_the_mask, "nan times 0 is nan"),
    ("07.1", reverses_as_a_list, "no step of -1"),
    ("07.1", masks_the_samples, "`x[:, mask]`"),
    ("07.1", crossed(used=lambda scores, full: full >= 0.05), "a row for each sample"),
    ("07.1", crossed(used=lambda scores, full: full[0] >= 0.05 and full[1] >= 0.05), "write `&`"),
    ("07.1", blanks_small_scores, "changes its argument `full`"),
    ("07.1", crossed(mean=lambda ratio, used: ratio[:, used].median()), "none of the usual mistakes"),
    ("07.2", lambda values, groups: (values.mean(), values.std() / len(values) ** 0.5), "as independent"),
    (
        "07.2",
        lambda values, groups: (values.mean(), values.std(correction=0) / len(values) ** 0.5),
        "divides by T instead of T - 1",
    ),
    ("07.2", lambda values, groups: (values.mean(), values.std() / 5**0.5), "the square root of G. Sum"),
    ("07.2", lambda values, groups: (values.mean(), values.std()), "the standard deviation of the values"),
    ("07.2", in_a_dictionary, "use `groups.tolist()` in a dictionary"),
    ("07.2", clustered(mean=mean_of_means), "the mean of the groups' means"),
    ("07.2", averages_first, "Your mean is the mean of the groups' means. Each task counts alike"),
    ("07.2", clustered(mean=mean_of_means, center=mean_of_means), "Your deviations are from"),
    ("07.2", clustered(center=mean_of_means), "Your deviations are from"),
    ("07.2", clustered(center=own_means), "Your standard error is 0"),
    ("07.2", lambda values, groups: (values.mean(), (values - values.mean()).sum() ** 2), "before you add"),
    ("07.2", clustered(labels=lambda groups: range(len(groups.unique()))), "counts labels from 0"),
    ("07.2", clustered(center=lambda values, groups: 0), "Subtract the mean from each"),
    ("07.2", clustered(factor=lambda G: 1), "lacks the factor"),
    ("07.2", clustered(factor=lambda G: (G - 1) / G), "turn it around"),
    ("07.2", clustered(factor=lambda G: 1 / (G - 1)), "do not multiply by G"),
    ("07.2", clustered(number=lambda values, groups: len(values)), "the factor T / (T - 1)"),
    ("07.2", clustered(number=lambda values, groups: len({*groups})), "`set` of a tensor keeps every entry"),
    ("07.2", counts_to_the_highest, "highest label plus 1"),
    ("07.2", clustered(last=lambda total, T, G: total**0.5 / G), "divide the root by G"),
    ("07.2", clustered(last=lambda total, T, G: (total / T) ** 0.5), "square root of T"),
    ("07.2", clustered(last=lambda total, T, G: (total / G) ** 0.5), "square root of G"),
    ("07.2", clustered(last=lambda total, T, G: total**0.5), "Divide the root by T"),
    ("07.2", clustered(last=lambda total, T, G: total / T), "take it before you divide"),
    ("07.2", clustered(last=lambda total, T, G: total / T**2), "square of the standard error"),
    ("07.2", clustered(inner=lambda d: (d**2).sum()), "then sum them within a group"),
    ("07.2", clustered(inner=lambda d: d.mean() ** 2), "average the deviations within a group; sum them"),
    (
        "07.2",
        clustered(inner=lambda d: d.mean() ** 2, last=lambda total, T, G: total**0.5 / G),
        "and divide by G. Sum them",
    ),
    ("07.2", clustered(labels=lambda groups: groups), "once for each of its tasks"),
    (
        "07.2",
        clustered(labels=lambda groups: {*groups}, number=lambda values, groups: len({*groups})),
        "your factor is T / (T - 1)",
    ),
    ("07.2", side_by_side, "stand side by side"),
    ("07.2", clustered(order=-1), "other order"),
    ("07.2", lambda values, groups: clustered()(values, groups)[1], "Return both numbers"),
    ("07.2", adds_at_labels, "Labels are names"),
    ("07.2", centers_in_place, "changes its argument `values`"),
    ("07.2", clustered(center=lambda values, groups: values.median()), "none of the usual mistakes"),
    ("07.3", 3, "3 times as many values"),
    ("07.3", 1, "Copies bring nothing new"),
    ("07.3", 10.0, "10 is the number of tasks"),
    ("07.3", 10**0.5, "square root of 10"),
    ("07.3", 30**0.5, "square root of 30"),
    ("07.3", 0.58, "1 over it"),
    ("07.3", 1 / 3, "wrong way round"),
    ("07.3", 13, "13 is too high: right is 1.6 to 1.9"),
    ("07.3", "sqrt(3)", "give one number"),
    ("07.4", "b", "does not show that nothing changes"),
    ("07.4", "C", "with prompt tuning"),
    ("07.4", "d", "is not given here"),
    ("08.1", decoded(order=(0, 1, 2, 3, 4, 5)), "run by run"),
    ("08.1", decoded(cut=lambda runs, shape: (*shape[:2], runs, *shape[2:])), "mixes the runs"),
    ("08.1", decoded(order=(2, 1, 0, 3, 4, 5)), "comes before that of the layers"),
    ("08.1", decoded(order=(1, 0, 2, 3, 4, 5)), "their axis is the third"),
    ("08.1", decoded(order=(1, 2, 0, 3, 5, 4)), "last two axes are swapped"),
    ("08.1", decoded(scale=lambda p, mean, std: p), "standardised; undo that"),
    ("08.1", decoded(scale=lambda p, mean, std: mean + p), "do not multiply by `std`"),
    ("08.1", decoded(scale=lambda p, mean, std: std * p), "do not add the mean"),
    ("08.1", decoded(scale=lambda p, mean, std: std * (mean + p)), "not std * (mean + p)"),
    ("08.1", decoded(act=lambda x: x), "has a tanh"),
    ("08.1", decoded(act=lambda x: x.detach().tanh()), "no gradient gets from the prompts to z"),
    ("08.1", lambda *given: one_by_one(*given).detach().numpy(), "no gradient gets from the prompts to z"),
    (
        "08.1",
        decoded(act=lambda x: x, scale=lambda p, mean, std: mean + std * p.tanh()),
        "not behind",
    ),
    ("08.1", decoded(act=torch.relu), "none of the usual mistakes"),
    (
        "08.1",
        decoded(cut=lambda runs, shape: (runs, -1)),
        "return a tensor of shape [2, 2, 3, 2, 2, 2]",
    ),
    ("08.1", without_biases, "has no biases"),
    ("08.2", 0.03, "0.03 is too low"),
    ("08.2", 0.5, "remembers, and there is nothing to share"),
    ("08.2", 1, "1 is too high"),
    ("08.3", "a", "may be luck"),
    ("08.3", "B", "can be clear although the intervals overlap"),
    ("08.3", "d", "what the other settings change"),
    ("09.1", tuning(train=6), "6 N is for fine-tuning"),
    ("09.1", tuning(train=2), "forward pass alone"),
    ("09.1", reads_in_every_step, "again in every step"),
    ("09.1", tuning(read=4), "2 N per token, not 4 N"),
    ("09.1", tuning(read=0), "cost something, too"),
    ("09.1", tuning(texts=lambda examples, steps, batch: 1), "You read one text"),
    ("09.1", tuning(texts=lambda examples, steps, batch: steps * batch), "texts of all steps"),
    ("09.1", tuning(rows=lambda steps, batch: steps), "one example per step"),
    ("09.1", tuning(rows=lambda steps, batch: batch), "You count one step"),
    ("09.1", tuning(tokens=lambda prompt, answer: prompt), "The answers pass through"),
    ("09.1", tuning(tokens=lambda prompt, answer: answer), "The prompt's tokens pass"),
    ("09.1", tuning(tokens=lambda prompt, answer: prompt + answer - 1), "last token, as the lesson does"),
    ("09.2", 850, "850 is too high: right is 350"),
    ("09.2", 8.5, "8.5 is too low"),
    ("09.2", 200, "the longest chain is all that is left"),
    ("09.3", "a", "only the renaming is one step"),
    ("09.3", "c", "only half of one"),
    ("09.3", "d", "after the jobs that it needs"),
    ("90.1", holds_value_so_fails, "as soon as the interval holds `value`"),
    ("90.1", verdict(words={OPEN: FAILS}), "to all that is left at the end"),
    ("90.1", not_significant_so_fails, "as soon as p is above 0.05"),
    ("90.1", verdict(clear=lambda *given: True), "You do not use p"),
    ("90.1", verdict(clear=lambda low, high, p, value, equal: p > 0.05), "the wrong way round"),
    ("90.1", verdict(clear=lambda low, high, p, value, equal: p < 0.05), "exactly 0.05 counts"),
    ("90.1", verdict(inside=lambda *given: False), "You do not use the margin"),
    ("90.1", by_the_middle, "by the middle of the interval. The effect"),
    (
        "90.1",
        verdict(inside=lambda low, high, p, value, equal: abs((low + high) / 2 - value) < equal),
        "the middle of the interval for the margin",
    ),
    (
        "90.1",
        verdict(
            above=lambda low, high, p, value, equal: low + high > 2 * value,
            below=lambda low, high, p, value, equal: low + high < 2 * value,
        ),
        "take p and the middle",
    ),
    ("90.1", value_forgotten, "You compare with 0"),
    ("90.1", verdict(inside=lambda low, high, p, value, equal: -equal < low and high < equal), "around 0"),
    (
        "90.1",
        verdict(above=lambda low, *others: low > 0, below=lambda low, high, *others: high < 0),
        "above and below are those of 0",
    ),
    ("90.1", verdict(inside=lambda low, high, p, value, equal: high < value + equal), "upper edge only"),
    ("90.1", verdict(inside=lambda low, high, p, value, equal: low > value - equal), "lower edge only"),
    (
        "90.1",
        verdict(inside=lambda low, high, p, value, equal: value < low and high < value + equal),
        "begins at `value`",
    ),
    (
        "90.1",
        verdict(inside=lambda low, high, p, value, equal: high - low < 2 * equal),
        "the width of the interval",
    ),
    (
        "90.1",
        verdict(
            inside=lambda low, high, p, value, equal: value * (1 - equal) < low < high < value * (1 + equal)
        ),
        "value - equal to value + equal",
    ),
    (
        "90.1",
        verdict(inside=lambda low, high, p, value, equal: low < value + equal and high > value - equal),
        "one end inside the margin",
    ),
    ("90.1", margin_first, "Your order hides a row"),
    ("90.1", holds_first, "too small to matter"),
    ("90.1", significant_inside, "every interval inside the margin with a small p"),
    ("90.1", beyond_the_margin, "lower end alone"),
    ("90.1", begins_above_the_margin, "For 'holds' you ask for"),
    ("90.1", verdict(above=lambda low, high, p, value, equal: low > value + equal), "the margin only tells"),
    ("90.1", lambda low, high, p, value, equal: verdict()(low, high, p, value, equal / 2), "half as wide"),
    ("90.1", by_sides_alone, "neither p nor the margin"),
    (
        "90.1",
        lambda low, high, *others: HOLDS if low + high > 2 * others[1] else FAILS,
        "nothing but the middle",
    ),
    (
        "90.1",
        lambda low, high, p, value, equal: verdict()(low - value, high, p, value, equal),
        "Where `value` is 0",
    ),
    ("90.1", inside_and_small, "For 'does not hold here' inside the margin you ask for a small p"),
    (
        "90.1",
        verdict(below=lambda low, high, p, value, equal: high < value - equal),
        "wholly below the margin",
    ),
    ("90.1", verdict(below=lambda *given: False), "A clear effect on the other side"),
    ("90.1", lambda low, high, p, value, equal: verdict()(-high, -low, p, -value, equal), "not for less"),
    ("90.1", lambda *given: OPEN, "should be 'holds', and yours is 'not testable at this scale'"),
    ("90.1", lambda low, high, p, value, equal: low > value, "something of type bool"),
    ("90.1", lambda *given: 0, "something of type int"),
    ("90.1", lambda *given: (verdict()(*given),), "something of type tuple"),
    ("90.1", lambda *given: verdict()(*given).title(), "letter by letter"),
    ("90.1", verdict(words={FAILS: "does not hold"}), "returns 'does not hold'"),
    ("90.1", verdict(words={OPEN: "not testable"}), "returns 'not testable'"),
    ("90.1", lambda *given: "h" * 10**7, "letter by letter"),
    ("90.1", last_row_forgotten, "returns nothing: end it with `return ...`.\nThe input was verdict(low="),
    ("90.1", stops_later, "stops with ValueError: not yet thought of"),
    ("90.1", lambda low, high: HOLDS, "cannot be called with its arguments (low, high, p, value, equal)"),
    ("90.1", verdict()(0.1, 0.2, 0.01, 0, 0.05), "needs your function itself"),
    ("08.2", 80 / 2304, "the share of new prompts"),
    ("08.2", 1, "99 directions"),
    ("09.2", 850, "one machine"),
    ("09.2", 8.5, "cannot be divided"),
    ("09.2", 550, "two machines"),
    ("09.2", 300, "before anything else"),
    ("90.2", 0, "No effect does not mean no small p"),
    ("90.2", 0.05, "0.05 is the share"),
    ("90.2", 5, "5 of 100 claims"),
    ("90.2", torch.tensor(20), "the sign of a difference"),
    ("90.2", 38, "count the others"),
    ("90.2", 40.0, "a small p is rare"),
    ("90.2", 35, "not yet: 35 is too high: right is 1.5 to 2.5"),
    ("90.2", 1, "1 of 20 claims"),
    ("90.2", "two", "give one number"),
    ("90.3", "a", "not evidence of absence"),
    ("90.3", "(b)", "only the middle"),
    ("90.3", "C", "every other time"),
    ("90.3", 4, "choose one of"),
]


# ---- right ones, written in other ways -----------------------------------------------------------
def by_cross_entropy(logits, tokens, is_answer):
    """With labels as transformers has them, in float64, and with an axis to spare."""
    labels = tokens.masked_fill(~is_answer, -100)
    print("shapes:", labels.shape)
    return functional.cross_entropy(logits[:, :-1].double().transpose(1, 2), labels[:, 1:])[None, None]


def by_hand(logits, tokens, is_answer):
    """With loops over rows and tokens."""
    total, count = 0.0, 0
    for row, ids, marks in zip(logits, tokens.tolist(), is_answer.tolist(), strict=True):
        for i in range(1, len(ids)):
            if marks[i]:
                total, count = total + row[i - 1].logsumexp(0) - row[i - 1, ids[i]], count + 1
    return total / count


def by_an_optimiser(model, P, text, answer, lr):
    """With backward and SGD, the model frozen first, the prompts one by one, as a tuple."""
    model.requires_grad_(False)
    new = []
    for p, left, right in zip(P, text, answer, strict=True):
        p = torch.nn.Parameter(p.clone())
        optimiser = torch.optim.SGD([p], lr=lr)
        embed = model.get_input_embeddings()
        x = torch.cat([embed(left), p, embed(right)])[None]
        logits = model(inputs_embeds=x).logits[0, -len(right) - 1 : -1]
        functional.cross_entropy(logits, right).backward()
        optimiser.step()
        new.append(p.detach())
    return tuple(new)


def by_concatenation(layout, P, table, text, anchor, answer):
    """Without a counter: the prompt is split first, and rows are lists."""
    parts = iter(P.split([entry for entry in layout if isinstance(entry, int)]))
    ids = {"text": text, "anchor": anchor}
    row = []
    for entry in layout:
        row += list(table[ids[entry]] if isinstance(entry, str) else next(parts))
    return torch.stack(row + list(table[answer]))


def text_first(q, k, v, K, V):
    """With the prompt behind the text, by PyTorch's own attention."""
    return functional.scaled_dot_product_attention(q, torch.cat([k, K], 1), torch.cat([v, V], 1))


def by_distances(low, high, p, value, equal):
    """With distances from the value, the last row first, and text of numpy."""
    ends = np.array([low, high]) - value
    sides = set(np.sign(ends)) if p <= 0.05 else set()
    inside = np.abs(ends).max() < equal
    if not inside and sides != {1} and sides != {-1}:
        return np.str_(OPEN)
    if sides != {1}:
        return FAILS
    return np.array([HOLDS, IN_PART])[int(inside)]


RIGHT = [
    ("00.1", lambda module: np.sum([p.numel() * p.requires_grad for p in module.parameters()]), "passed"),
    ("00.2", split_groups(), "passed"),
    ("00.2", split_groups(lambda seen, unseen: [set(seen), tuple(unseen)]), "passed"),
    ("00.3", "b)", "passed"),
    ("01.1", wording(), "passed"),
    ("01.2", 0.25, "passed"),
    ("01.3", lambda dev, test: test[range(len(dev)), dev.argmax(1)].mean(), "passed"),
    (
        "01.3",
        lambda dev, test: float(np.mean([t[d.argmax()] for d, t in zip(dev, test, strict=True)])),
        "passed",
    ),
    ("01.4", "B", "passed"),
    ("02.1", by_cross_entropy, "Your code printed: shapes: torch.Size([3, 9])"),
    ("02.1", by_hand, "passed"),
    ("02.2", by_an_optimiser, "passed"),
    ("02.2", changed(), "passed"),
    ("02.3", np.float32(0.1), "passed"),
    ("02.3", torch.tensor([0.07]), "passed"),
    ("02.4", " (B) ", "passed"),
    ("03.2", counted(), "passed"),
    ("03.2", lambda n, d: float(counted()(n, d)), "passed"),
    ("03.3", placed(), "passed"),
    ("03.3", by_concatenation, "passed"),
    ("03.4", 0.98, "passed"),
    ("04.1", prompt_for(slice(-1, None)), "passed"),
    ("04.2", text_first, "passed"),
    ("04.3", "c", "passed"),
    ("04.4", "(D)", "passed"),
    ("05.1", mean_code(), "passed"),
    ("05.1", by_layers, "passed"),
    ("05.2", layers(), "passed"),
    ("05.2", lambda n, d, hidden, d_I: float(layers()(n, d, hidden, d_I)), "passed"),
    ("05.3", torch.tensor(99), "passed"),
    ("05.4", "(b)", "passed"),
    ("06.1", ist(), "passed"),
    ("06.1", with_sgd, "passed"),
    ("06.2", kept(), "passed"),
    ("06.2", lambda scores, full: torch.stack(kept()(scores, full)).double().numpy(), "passed"),
    ("06.3", 5 / 8, "passed"),
    ("06.4", "B.", "passed"),
    ("07.1", crossed(), "passed"),
    ("07.1", crossed(lambda full: full[[1, 0]].double()), "passed"),
    ("07.1", task_by_task, "passed"),
    ("07.1", by_the_kit, "passed"),
    ("07.2", clustered(), "passed"),
    ("07.2", by_products, "passed"),
    ("07.2", by_the_kits_error, "passed"),
    ("07.3", 3**0.5, "passed"),
    ("07.3", 1.8, "passed"),
    ("07.4", "(A)", "passed"),
    ("08.1", one_by_one, "passed"),
    ("08.2", 0.81, "passed"),
    ("08.2", torch.tensor(0.86), "passed"),
    ("08.3", "(c)", "passed"),
    ("09.1", tuning(), "passed"),
    ("09.1", lambda *sizes: float(tuning()(*sizes)), "passed"),
    ("09.2", 350.0, "passed"),
    ("09.3", " B ", "passed"),
    ("90.1", verdict(), "passed"),
    ("90.1", by_distances, "passed"),
    ("90.2", 0.05 * 40, "passed"),
    ("90.2", np.array([2]), "passed"),
    ("90.3", "(D)", "passed"),
]
